/**
 * How many prompt tokens a step may read beside those that decode, so that running streams keep their pace: the chunk's run takes
 * about `maxStall` times as long as a decode step takes. What a token costs differs by model, machine and load, and is not
 * the same in large and small chunks; so the size follows what the last chunks took.
 */

/** Of what is expected of the next run, the share that the last one has. */
const WEIGHT = 0.25;
/** A single measurement, which may be an accident, counts as no further from what was expected than this factor. */
const MAX_CHANGE = 1.5;
const FIRST_CHUNK = 8;

export interface ChunkPaceOptions {
  readonly maxChunk: number;
  /** How long a chunk may take, in decode steps. Infinity: as long as it takes. */
  readonly maxStall: number;
}

export class ChunkPace {
  readonly #maxChunk: number;
  readonly #maxStall: number;
  /** Expected of the next decode step. */
  #decodeMs: number | undefined;
  /** Not whole: small changes add up. */
  #size: number;

  constructor({ maxChunk, maxStall }: ChunkPaceOptions) {
    this.#maxChunk = maxChunk;
    this.#maxStall = maxStall;
    this.#size = Number.isFinite(maxStall) ? Math.min(FIRST_CHUNK, maxChunk) : maxChunk;
  }

  /** From 1 to `maxChunk`. */
  get size(): number {
    return this.#size < COARSE ? Math.floor(this.#size) : Math.floor(this.#size / COARSE) * COARSE;
  }

  recordDecode(durationMs: number): void {
    this.#decodeMs =
      this.#decodeMs === undefined
        ? durationMs
        : this.#decodeMs * (1 + WEIGHT * (change(this.#decodeMs, durationMs) - 1));
  }

  /** A chunk of `numTokens` that was read beside decoding sequences. */
  recordChunk(numTokens: number, durationMs: number): void {
    // The last piece of a prompt is too small to learn from.
    if (this.#decodeMs === undefined || numTokens < this.size) return;
    const allowedMs = this.#maxStall * this.#decodeMs;
    this.#size = Math.min(this.#maxChunk, Math.max(1, this.#size * change(durationMs, allowedMs) ** 0.5));
  }
}

/** Above this, sizes are multiples of it: each is a shape of its own to the runner. */
const COARSE = 8;

/** The factor from one duration to the other, within bounds. */
function change(fromMs: number, toMs: number): number {
  return Math.min(MAX_CHANGE, Math.max(1 / MAX_CHANGE, toMs / fromMs));
}
