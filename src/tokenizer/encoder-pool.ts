/**
 * A few encoder processes and the texts that wait for them. Requests take turns, each with one text, so that one of many texts holds
 * up none of a few. A process that died, or was killed because nobody waits for its answer any more, is replaced when the next
 * text comes.
 */
import { DenseMambaError } from "../errors.ts";
import type { EncoderProcess } from "./encoder-process.ts";

/** A process that encodes a longer text is killed when its caller leaves; a shorter text is soon done. */
const MAX_PATIENT_LENGTH = 64 * 1024;

export interface EncoderPoolOptions {
  readonly start: () => Promise<EncoderProcess>;
  readonly first?: EncoderProcess;
  readonly maxProcesses: number;
  /** For one text. */
  readonly timeoutMs: number;
  /** An idle process ends after this time. */
  readonly idleMs?: number;
}

interface Job {
  readonly text: string;
  readonly signal: AbortSignal | undefined;
  readonly resolve: (ids: Int32Array) => void;
  readonly reject: (error: unknown) => void;
}

export class EncoderPool {
  readonly #options: EncoderPoolOptions;
  /** By request, whose texts have one signal; the first one's turn is next. */
  readonly #waiting = new Map<object, Job[]>();
  readonly #idle: EncoderProcess[] = [];
  #numBusy = 0;
  #idleTimer: NodeJS.Timeout | undefined;

  constructor(options: EncoderPoolOptions) {
    this.#options = options;
    if (options.first) this.#idle.push(options.first);
  }

  /**
   * @param signal stands for the request
   * @throws `aborted` at once when the signal says so; else as `EncoderProcess` does
   */
  encode(text: string, signal?: AbortSignal): Promise<Int32Array> {
    if (signal?.aborted) return Promise.reject(aborted());
    let leave = () => {};
    const encoded = new Promise<Int32Array>((resolve, reject) => {
      const job: Job = { text, signal, resolve, reject };
      const request = signal ?? job;
      leave = () => {
        this.#waiting.delete(request);
        reject(aborted());
      };
      const earlier = this.#waiting.get(request);
      if (earlier) earlier.push(job);
      else this.#waiting.set(request, [job]);
      if (this.#numBusy < this.#options.maxProcesses) void this.#work();
    });
    signal?.addEventListener("abort", leave, { once: true });
    return encoded.finally(() => signal?.removeEventListener("abort", leave));
  }

  /** Ends idle processes. */
  close(): void {
    for (const process of this.#idle.splice(0)) process.kill("it is no longer needed");
  }

  /** One process works through the queue. Never rejects: failures go to the callers. */
  async #work(): Promise<void> {
    this.#numBusy++;
    clearTimeout(this.#idleTimer);
    let process = this.#idle.pop();
    for (let job = this.#next(); job !== undefined; job = this.#next()) {
      try {
        if (!process?.isAlive) process = await this.#options.start();
        if (job.signal?.aborted) continue;
        job.resolve(await this.#run(process, job));
      } catch (error) {
        job.reject(error);
      }
    }
    this.#numBusy--;
    if (process?.isAlive) this.#idle.push(process);
    if (this.#numBusy === 0) this.#awaitIdleEnd();
  }

  #next(): Job | undefined {
    for (const [request, [job, ...later]] of this.#waiting) {
      this.#waiting.delete(request);
      if (later.length > 0) this.#waiting.set(request, later);
      return job;
    }
    return undefined;
  }

  async #run(process: EncoderProcess, { text, signal }: Job): Promise<Int32Array> {
    const stop = () => {
      if (text.length > MAX_PATIENT_LENGTH) process.kill("nobody waits for the answer");
    };
    signal?.addEventListener("abort", stop, { once: true });
    try {
      return await process.encode(text, this.#options.timeoutMs);
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  #awaitIdleEnd(): void {
    if (this.#options.idleMs === undefined) return;
    this.#idleTimer = setTimeout(() => this.close(), this.#options.idleMs);
    this.#idleTimer.unref();
  }
}

function aborted(): DenseMambaError {
  return new DenseMambaError("aborted", "the request was aborted before its text was encoded");
}
