/**
 * Masks that are being found, in turns and in slices: nobody waits long for the event loop. One
 * that takes long gets a small share of the time, one that takes too long fails.
 */
import { DenseMambaError } from "../errors.ts";
import type { MaskWalk } from "./token-trie.ts";

/** A mask that is being found. */
export interface MaskJob {
  readonly walk: MaskWalk;
  readonly done: () => void;
  readonly failed: (error: unknown) => void;
}

const SLICE_MS = 1;
/** A mask that has taken this long is slow: others come first. */
const SLOW_MS = 20;
/** Between two slices when all that wait are slow. */
const PAUSE_MS = 4;
/** For one mask. */
const MAX_MS = 1000;

export interface SlicedWorkOptions {
  /** Monotonic, in milliseconds. */
  readonly now: () => number;
}

export class SlicedWork {
  readonly #now: () => number;
  /** The time that each has taken. The first is next. */
  readonly #jobs = new Map<MaskJob, number>();
  #isScheduled = false;

  constructor({ now }: SlicedWorkOptions) {
    this.#now = now;
  }

  add(job: MaskJob): void {
    this.#jobs.set(job, 0);
    this.#schedule();
  }

  drop(job: MaskJob): void {
    this.#jobs.delete(job);
  }

  /** Goes on with one, now, unless it is slow. */
  runNow(job: MaskJob, maxMs: number): void {
    const taken = this.#jobs.get(job);
    if (taken !== undefined && taken < SLOW_MS) this.#run(job, maxMs);
  }

  #run(job: MaskJob, maxMs: number): void {
    const startMs = this.#now();
    const taken = this.#jobs.get(job)!;
    // Behind the others.
    this.#jobs.delete(job);
    try {
      if (job.walk.advance(() => this.#now() - startMs < maxMs)) {
        job.done();
        return;
      }
      const total = taken + this.#now() - startMs;
      if (total > MAX_MS) throw tooSlow();
      this.#jobs.set(job, total);
    } catch (error) {
      job.failed(error);
    }
  }

  #schedule(): void {
    if (this.#isScheduled || this.#jobs.size === 0) return;
    this.#isScheduled = true;
    const isQuick = [...this.#jobs.values()].some((taken) => taken < SLOW_MS);
    const slice = () => {
      this.#isScheduled = false;
      const quick = [...this.#jobs].find(([, taken]) => taken < SLOW_MS);
      const [job] = quick ?? [...this.#jobs][0] ?? [];
      if (job !== undefined) this.#run(job, SLICE_MS);
      this.#schedule();
    };
    if (isQuick) setImmediate(slice);
    else setTimeout(slice, PAUSE_MS);
  }
}

function tooSlow(): DenseMambaError {
  return new DenseMambaError("invalid_value", `is too complex: the next token was not found within ${MAX_MS} ms`);
}
