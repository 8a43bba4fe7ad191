/**
 * The memory's read bandwidth: the bound under every decode step, since each one reads all weights once. Measured by
 * comparing the halves of large zeroed buffers (a vectorised loop in C that reads two streams) on several threads at once.
 */
import { once } from "node:events";
import { Worker } from "node:worker_threads";

const BYTES_PER_THREAD = 512 * 1024 * 1024;
/** Of one measurement, by each thread. */
const LEAST_BYTES_READ = 3 * 1024 * 1024 * 1024;
const BEST_OF = 5;

const SCAN = `
const { parentPort, workerData } = require("node:worker_threads");
const buffer = Buffer.alloc(workerData.bytes, 0);
for (let i = 0; i < buffer.length; i += 4096) buffer[i] = 2; // every page is really there
for (let i = 0; i < buffer.length; i += 4096) buffer[i] = 0;
parentPort.on("message", (wanted) => {
  const half = Math.min(buffer.length, wanted) >> 1;
  const passes = Math.ceil(workerData.leastBytesRead / (2 * half));
  const [a, b] = [buffer.subarray(0, half), buffer.subarray(half, 2 * half)];
  const startMs = performance.timeOrigin + performance.now();
  for (let pass = 0; pass < passes; pass++) if (!a.equals(b)) throw new Error("unreachable");
  parentPort.postMessage({ startMs, endMs: performance.timeOrigin + performance.now(), bytes: 2 * half * passes });
});
parentPort.postMessage("ready");
`;

/** What one thread read, and when: all threads have one clock. */
export interface Reading {
  readonly startMs: number;
  readonly endMs: number;
  readonly bytes: number;
}

/**
 * Bytes per second of threads that read together, from the first one's start to the last one's end. Their own rates must not be
 * added up: threads that happen to run one after the other have the whole memory for themselves.
 */
export function rateTogether(readings: readonly Reading[]): number {
  const startMs = Math.min(...readings.map((reading) => reading.startMs));
  const endMs = Math.max(...readings.map((reading) => reading.endMs));
  return (readings.reduce((sum, { bytes }) => sum + bytes, 0) / (endMs - startMs)) * 1000;
}

/** The threads and their buffers, kept so that a bench can measure again and again, in turns with what it compares. */
export class ReadBandwidth {
  readonly #workers: readonly Worker[];

  private constructor(workers: readonly Worker[]) {
    this.#workers = workers;
  }

  static async open(numThreads: number): Promise<ReadBandwidth> {
    const workers = Array.from(
      { length: numThreads },
      () => new Worker(SCAN, { eval: true, workerData: { bytes: BYTES_PER_THREAD, leastBytesRead: LEAST_BYTES_READ } }),
    );
    await Promise.all(workers.map(nextMessage));
    return new ReadBandwidth(workers);
  }

  /**
   * Bytes per second, now, where the threads together read `numBytes` again and again, as decode steps do: of a few hundred
   * megabytes the processor's caches may hold a part, and the bound is what they give as well.
   */
  async measure(numBytes: number = this.#workers.length * BYTES_PER_THREAD): Promise<number> {
    const answers = this.#workers.map(nextMessage);
    for (const worker of this.#workers) worker.postMessage(Math.ceil(numBytes / this.#workers.length));
    return rateTogether((await Promise.all(answers)) as Reading[]);
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

/** @throws what the worker failed with. */
async function nextMessage(worker: Worker): Promise<unknown> {
  const [message]: unknown[] = await once(worker, "message");
  return message;
}
