/**
 * The memory's read bandwidth: the bound under every decode step, since each one reads all weights once. Measured by
 * searching large zeroed buffers for a byte that is not there (a vectorised scan in C) on several threads at once.
 */
import { Worker } from "node:worker_threads";

const BYTES_PER_THREAD = 512 * 1024 * 1024;
const PASSES = 6;

const SCAN = `
const { parentPort, workerData } = require("node:worker_threads");
const buffer = Buffer.alloc(workerData.bytes, 0);
for (let i = 0; i < buffer.length; i += 4096) buffer[i] = 2; // every page is really there
for (let i = 0; i < buffer.length; i += 4096) buffer[i] = 0;
parentPort.on("message", () => {
  const startMs = performance.now();
  for (let pass = 0; pass < workerData.passes; pass++) if (buffer.indexOf(1) !== -1) throw new Error("unreachable");
  parentPort.postMessage((workerData.bytes * workerData.passes) / (performance.now() - startMs));
});
parentPort.postMessage("ready");
`;

/** Bytes per second read by `numThreads` threads together; the best of three rounds. */
export async function measureReadBandwidth(numThreads: number): Promise<number> {
  const workers = Array.from(
    { length: numThreads },
    () => new Worker(SCAN, { eval: true, workerData: { bytes: BYTES_PER_THREAD, passes: PASSES } }),
  );
  try {
    await Promise.all(workers.map(nextMessage));
    let best = 0;
    for (let round = 0; round < 3; round++) {
      const answers = workers.map(nextMessage);
      for (const worker of workers) worker.postMessage("go");
      const bytesPerMs = (await Promise.all(answers)) as number[];
      best = Math.max(best, bytesPerMs.reduce((sum, rate) => sum + rate, 0) * 1000);
    }
    return best;
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
}

function nextMessage(worker: Worker): Promise<unknown> {
  return new Promise((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
  });
}
