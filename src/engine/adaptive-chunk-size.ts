/**
 * How many prompt tokens a step may read while other sequences decode, so that running streams keep
 * their pace: a step may take about `1 + maxStall` times as long as decoding alone. The cost of a
 * token depends on model, machine, load and chunk size, so the size follows the duration of recent
 * steps. How long decoding alone takes is measured by steps without prompt tokens; some are made as
 * probes.
 */

/** One measurement, which may be an outlier, changes the size by at most this factor. */
const MAX_CHANGE = 1.5;
const FIRST_CHUNK = 8;
/**
 * The duration of decoding alone is the minimum of the last so many probes: the first step of a new
 * shape, and a probe right after prefill has evicted the weights from the caches, take up to 3x as
 * long.
 */
const NUM_REMEMBERED = 8;
const NUM_FIRST_PROBES = 2;
/** After so many steps with prompt tokens comes a probe. */
const STEPS_BETWEEN_PROBES = 64;
/** Above this, sizes are multiples of it, since each size is a shape of its own to the runner. */
const COARSE = 8;

export interface AdaptiveChunkSizeOptions {
  readonly maxChunk: number;
  /** How long prefill may delay decoding, in decode steps. Infinity: no bound. */
  readonly maxStall: number;
}

/** Probes with one number of decoding sequences. */
interface Decoding {
  /** The latest, oldest first. */
  readonly durationsMs: number[];
  numStepsSince: number;
}

export class AdaptiveChunkSize {
  readonly #maxChunk: number;
  readonly #maxStall: number;
  readonly #decoding = new Map<number, Decoding>();
  /** Fractional, so that small changes add up. */
  #size: number;

  constructor({ maxChunk, maxStall }: AdaptiveChunkSizeOptions) {
    this.#maxChunk = maxChunk;
    this.#maxStall = maxStall;
    this.#size = Number.isFinite(maxStall) ? Math.min(FIRST_CHUNK, maxChunk) : maxChunk;
  }

  /** From 1 to `maxChunk`; 0 asks for a probe. */
  size(numDecoding: number): number {
    if (!Number.isFinite(this.#maxStall)) return this.#maxChunk;
    const known = this.#decoding.get(numDecoding);
    if (known === undefined || known.durationsMs.length < NUM_FIRST_PROBES) return 0;
    return known.numStepsSince >= STEPS_BETWEEN_PROBES ? 0 : this.#coarseSize;
  }

  get #coarseSize(): number {
    return this.#size < COARSE ? Math.floor(this.#size) : Math.floor(this.#size / COARSE) * COARSE;
  }

  /** Records a finished step. */
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
    // The end of a prompt is too small to learn from, and without a probe there is nothing to
    // compare with.
    if (numPromptTokens < this.#coarseSize || known.durationsMs.length === 0) return;
    const allowedMs = (1 + this.#maxStall) * Math.min(...known.durationsMs);
    this.#size = Math.min(this.#maxChunk, Math.max(1, this.#size * change(durationMs, allowedMs) ** 0.5));
  }
}

/** The factor from one duration to the other, within bounds. */
function change(fromMs: number, toMs: number): number {
  return Math.min(MAX_CHANGE, Math.max(1 / MAX_CHANGE, toMs / fromMs));
}
