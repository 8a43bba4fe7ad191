/**
 * The memory's read bandwidth, which limits every decode step, since a step reads all weights once.
 * Measured by comparing the halves of large zeroed buffers (a vectorised loop in C that reads two
 * streams) on several threads at once.
 */
import { once } from "node:events";
import { Worker } from "node:worker_threads";

const BYTES_PER_THREAD = 512 * 1024 * 1024;
/** By each thread in one measurement. */
const MIN_BYTES_READ = 3 * 1024 * 1024 * 1024;
const BEST_OF = 5;

const SCAN = `
const { parentPort, workerData } = require("node:worker_threads");
const buffer = Buffer.alloc(workerData.bytes, 0);
for (let i = 0; i < buffer.length; i += 4096) buffer[i] = 2; // makes every page resident
for (let i = 0; i < buffer.length; i += 4096) buffer[i] = 0;
parentPort.on("message", (wanted) => {
  const half = Math.min(buffer.length, wanted) >> 1;
  const passes = Math.ceil(workerData.minBytesRead / (2 * half));
  const [a, b] = [buffer.subarray(0, half), buffer.subarray(half, 2 * half)];
  const startMs = performance.timeOrigin + performance.now();
  for (let pass = 0; pass < passes; pass++) if (!a.equals(b)) throw new Error("unreachable");
  parentPort.postMessage({ startMs, endMs: performance.timeOrigin + performance.now(), bytes: 2 * half * passes });
});
parentPort.postMessage("ready");
`;

/** What one thread read, and when. All threads share a clock. */
export interface ThreadRead {
  readonly startMs: number;
  readonly endMs: number;
  readonly bytes: number;
}

/**
 * Bytes per second of threads that read together, from the first start to the last end. Their own
 * rates must not be added up: threads that happen to run one after the other have the whole memory
 * to themselves.
 */
export function combinedRate(reads: readonly ThreadRead[]): number {
  const startMs = Math.min(...reads.map((read) => read.startMs));
  const endMs = Math.max(...reads.map((read) => read.endMs));
  return (reads.reduce((sum, { bytes }) => sum + bytes, 0) / (endMs - startMs)) * 1000;
}

/**
 * The threads and their buffers stay, so that a benchmark can measure again and again, in turns
 * with what it compares.
 */
export class ReadBandwidth {
  readonly #workers: readonly Worker[];

  private constructor(workers: readonly Worker[]) {
    this.#workers = workers;
  }

  static async open(numThreads: number): Promise<ReadBandwidth> {
    const workerData = { bytes: BYTES_PER_THREAD, minBytesRead: MIN_BYTES_READ };
    const workers = Array.from({ length: numThreads }, () => new Worker(SCAN, { eval: true, workerData }));
    await Promise.all(workers.map(nextMessage));
    return new ReadBandwidth(workers);
  }

  /**
   * Bytes per second, now, where the threads together read `numBytes` again and again, as decode
   * steps do: the processor's caches may hold a part of a few hundred megabytes.
   */
  async measure(numBytes: number = this.#workers.length * BYTES_PER_THREAD): Promise<number> {
    const answers = this.#workers.map(nextMessage);
    for (const worker of this.#workers) worker.postMessage(Math.ceil(numBytes / this.#workers.length));
    return combinedRate((await Promise.all(answers)) as ThreadRead[]);
  }

  /** The best of a few rounds. */
  async measureBest(): Promise<number> {
    let best = 0;
    for (let round = 0; round < BEST_OF; round++) best = Math.max(best, await this.measure());
    return best;
  }

  async close(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }
}

export async function withReadBandwidth<T>(numThreads: number, use: (memory: ReadBandwidth) => Promise<T>): Promise<T> {
  const memory = await ReadBandwidth.open(numThreads);
  try {
    return await use(memory);
  } finally {
    await memory.close();
  }
}

/** @throws what the worker failed with */
async function nextMessage(worker: Worker): Promise<unknown> {
  const [message]: unknown[] = await once(worker, "message");
  return message;
}
