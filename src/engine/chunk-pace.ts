/**
 * How many prompt tokens a step may read beside those that decode, so that running streams keep their pace: a step takes about
 * `1 + maxStall` times as long as it takes for those that decode alone. What a token costs differs by model, machine and load,
 * and is not the same in large and small chunks; so the size follows what the last steps took. What decoding alone takes is learnt
 * from steps that read nothing: some are made for that.
 */

/** A single measurement, which may be an accident, counts as no further from what was expected than this factor. */
const MAX_CHANGE = 1.5;
const FIRST_CHUNK = 8;
/**
 * Steps of so many that decode alone are known by the shortest of their last so many: the first one, of a shape that is new, and a
 * single one among those that read, whose weights they have driven out of the caches, take up to three times as long.
 */
const NUM_REMEMBERED = 8;
const NUM_FIRST_LOOKS = 2;
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
  /** The last ones, the oldest first. */
  readonly durationsMs: number[];
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
    if (known === undefined || known.durationsMs.length < NUM_FIRST_LOOKS) return 0;
    return known.numStepsSince >= STEPS_BETWEEN_LOOKS ? 0 : this.#coarseSize;
  }

  get #coarseSize(): number {
    return this.#size < COARSE ? Math.floor(this.#size) : Math.floor(this.#size / COARSE) * COARSE;
  }

  /** A step that has been made. */
  record(step: { readonly numDecoding: number; readonly numPromptTokens: number; readonly durationMs: number }): void {
    const { numDecoding, numPromptTokens, durationMs } = step;
    if (numDecoding === 0) return;
    const known = this.#decoding.get(numDecoding) ?? { durationsMs: [], numStepsSince: 0 };
    this.#decoding.set(numDecoding, known);
    if (numPromptTokens === 0) {
      known.numStepsSince = 0;
      if (known.durationsMs.push(durationMs) > NUM_REMEMBERED) known.durationsMs.shift();
      return;
    }
    known.numStepsSince++;
    // The last piece of a prompt is too small to learn from, and without a look there is nothing to compare with.
    if (numPromptTokens < this.#coarseSize || known.durationsMs.length === 0) return;
    const allowedMs = (1 + this.#maxStall) * Math.min(...known.durationsMs);
    this.#size = Math.min(this.#maxChunk, Math.max(1, this.#size * change(durationMs, allowedMs) ** 0.5));
  }
}

/** The factor from one duration to the other, within bounds. */
function change(fromMs: number, toMs: number): number {
  return Math.min(MAX_CHANGE, Math.max(1 / MAX_CHANGE, toMs / fromMs));
}
