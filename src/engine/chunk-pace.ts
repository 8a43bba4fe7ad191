/**
 * How many prompt tokens a step may read beside those that decode, so that running streams keep their pace: a step takes about
 * `1 + maxStall` times as long as it takes for those that decode alone. What a token costs differs by model, machine and load,
 * and is not the same in large and small chunks; so the size follows what the last steps took. What decoding alone takes is learnt
 * from steps that read nothing: some are made for that.
 */

/** Of what is expected of the next run, the share that the last one has. */
const WEIGHT = 0.25;
/** A single measurement, which may be an accident, counts as no further from what was expected than this factor. */
const MAX_CHANGE = 1.5;
const FIRST_CHUNK = 8;
/** After so many steps that read prompts, one shows what decoding takes without. */
const STEPS_BETWEEN_LOOKS = 64;
/** Above this, sizes are multiples of it: each is a shape of its own to the runner. */
const COARSE = 8;

export interface ChunkPaceOptions {
  readonly maxChunk: number;
  /** How long the reading may hold up decoding, in steps of it. Infinity: as long as it takes. */
  readonly maxStall: number;
}

/** What is known of steps of so many sequences that decode, and read nothing. */
interface Decoding {
  expectedMs: number;
  numStepsSince: number;
}

export class ChunkPace {
  readonly #maxChunk: number;
  readonly #maxStall: number;
  readonly #decoding = new Map<number, Decoding>();
  /** Not whole: small changes add up. */
  #size: number;

  constructor({ maxChunk, maxStall }: ChunkPaceOptions) {
    this.#maxChunk = maxChunk;
    this.#maxStall = maxStall;
    this.#size = Number.isFinite(maxStall) ? Math.min(FIRST_CHUNK, maxChunk) : maxChunk;
  }

  /** From 1 to `maxChunk`; or 0, for a look at how long so many take to decode. */
  size(numDecoding: number): number {
    if (!Number.isFinite(this.#maxStall)) return this.#maxChunk;
    const known = this.#decoding.get(numDecoding);
    return known === undefined || known.numStepsSince >= STEPS_BETWEEN_LOOKS ? 0 : this.#coarseSize;
  }

  get #coarseSize(): number {
    return this.#size < COARSE ? Math.floor(this.#size) : Math.floor(this.#size / COARSE) * COARSE;
  }

  /** A step that has been made. */
  record(step: { readonly numDecoding: number; readonly numPromptTokens: number; readonly durationMs: number }): void {
    const { numDecoding, numPromptTokens, durationMs } = step;
    if (numDecoding === 0) return;
    const known = this.#decoding.get(numDecoding);
    if (numPromptTokens === 0) {
      const weighted = known && known.expectedMs * (1 + WEIGHT * (change(known.expectedMs, durationMs) - 1));
      this.#decoding.set(numDecoding, { expectedMs: weighted ?? durationMs, numStepsSince: 0 });
    } else if (known !== undefined) {
      known.numStepsSince++;
      // The last piece of a prompt is too small to learn from.
      if (numPromptTokens < this.#coarseSize) return;
      const allowedMs = (1 + this.#maxStall) * known.expectedMs;
      this.#size = Math.min(this.#maxChunk, Math.max(1, this.#size * change(durationMs, allowedMs) ** 0.5));
    }
  }
}

/** The factor from one duration to the other, within bounds. */
function change(fromMs: number, toMs: number): number {
  return Math.min(MAX_CHANGE, Math.max(1 / MAX_CHANGE, toMs / fromMs));
}
