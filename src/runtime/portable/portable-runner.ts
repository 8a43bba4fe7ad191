/**
 * The `portable` runner: onnxruntime-node's own binding, in a worker thread that also holds the
 * states. The fallback without a koffi build, and the cross-check of `native`. If the worker dies,
 * that is a fault, and the process survives.
 */
import { AssertionError } from "node:assert";
import path from "node:path";
import { Worker } from "node:worker_threads";
import { DenseMambaError } from "../../errors.ts";
import type { Manifest } from "../../model/artifact.ts";
import { readManifest } from "../../model/manifest.ts";
import { CallGuard } from "../call-guard.ts";
import { chooseNumThreads, describeRunner } from "../describe-runner.ts";
import { kernelsFor } from "../kernels-for.ts";
import { assertRunInput, graphRows, writeInt64 } from "../run-input.ts";
import { toRunOutput } from "../run-output.ts";
import type { ModelRunner, RunInput, RunnerOptions, RunOutput } from "../runner.ts";
import type { CallKind, Calls, WorkerGreeting, WorkerReply, WorkerRequest, WorkerSettings } from "./messages.ts";

interface Pending {
  resolve(result: unknown): void;
  reject(error: Error): void;
}

export class PortableRunner implements ModelRunner {
  readonly manifest: Manifest;
  readonly numSlots: number;
  readonly description: string;
  readonly #worker: Worker;
  readonly #guard = new CallGuard("the portable runner");
  /** The call that the worker has not answered yet; the guard lets only one through. */
  #pending: Pending | undefined;
  #exited = false;

  /**
   * Does not block the event loop while the model loads.
   * @throws `invalid_artifact`, `device_unavailable`.
   */
  static async open(options: RunnerOptions): Promise<PortableRunner> {
    const manifest = await readManifest(options.artifactDir);
    kernelsFor("portable", manifest, options);
    if (options.device === "cuda") throw noCuda();
    const settings: WorkerSettings = {
      manifest,
      modelPath: path.resolve(options.artifactDir, manifest.graph),
      decodeModelPath: manifest.decodeGraph && path.resolve(options.artifactDir, manifest.decodeGraph),
      numSlots: options.numSlots,
      numThreads: chooseNumThreads(options.numThreads),
    };
    const worker = startWorker(settings);
    const greeting = await new Promise<WorkerGreeting>((resolve, reject) => {
      worker.once("message", resolve);
      worker.once("error", (cause) => reject(workerDied(`in starting: ${cause}`, cause)));
      worker.once("exit", (code) => reject(workerDied(`in starting, exit code ${code}`)));
    });

    if (!greeting.ok) throw toError(greeting);
    const description = describeRunner("portable", options, greeting.version, settings.numThreads, manifest);
    return new PortableRunner(worker, settings, description);
  }

  private constructor(worker: Worker, settings: WorkerSettings, description: string) {
    this.manifest = settings.manifest;
    this.numSlots = settings.numSlots;
    this.description = description;
    this.#worker = worker;
    worker.on("message", this.#settle);
    worker.on("error", (cause) => this.#died(workerDied(String(cause), cause)));
    worker.on("exit", (code) => {
      this.#exited = true;
      this.#died(workerDied(`exit code ${code}`));
    });
    worker.unref(); // an idle runner does not keep the process alive, like the native one
  }

  run(input: RunInput): Promise<RunOutput> {
    return this.#guard.exclusive(async () => {
      assertRunInput(input, this.numSlots, this.manifest);
      const { firstSlot, lengths, wantsHidden = false } = input;
      const [numSequences, numSteps] = [lengths.length, lengths[0]!]; // its artifacts take no lengths: all are the same
      const numRows = input.logitRows.length;
      const rows = graphRows(input);
      const tokenIds = toInt64(input.tokenIds);
      const logitRows = toInt64(rows.logitRows);
      const temperatures = Float32Array.from(rows.temperatures);
      const request = { firstSlot, numSequences, numSteps, numRows, wantsHidden, tokenIds, logitRows, temperatures };
      const transfer = [tokenIds.buffer, logitRows.buffer, temperatures.buffer];
      return toRunOutput(await this.#call("run", request, transfer), this.manifest.sizes.vocabSize);
    });
  }

  clearSlot(slot: number): Promise<void> {
    return this.#guard.exclusive(() => this.#call("clearSlot", { slot }));
  }

  copySlot(from: number, to: number): Promise<void> {
    return this.#guard.exclusive(() => this.#call("copySlot", { from, to }));
  }

  swapSlots(a: number, b: number): Promise<void> {
    return this.#guard.exclusive(() => this.#call("swapSlots", { a, b }));
  }

  readSlot(slot: number): Promise<Uint8Array> {
    return this.#guard.exclusive(() => this.#call("readSlot", { slot }));
  }

  writeSlot(slot: number, state: Uint8Array): Promise<void> {
    return this.#guard.exclusive(() => this.#call("writeSlot", { slot, state }));
  }

  /** Waits for a run in flight: the binding has no way to cut one short. */
  close(): Promise<void> {
    return this.#guard.close(async () => {
      if (this.#exited) return;
      const exited = new Promise((resolve) => this.#worker.once("exit", resolve));
      await this.#call("close", {}).catch(() => undefined); // a worker that died instead has nothing left to free
      this.#worker.ref(); // or the process may end before the worker has
      await exited;
    });
  }

  /**
   * Ends the worker without an answer to the call in flight, as a crash would. For tests. NOTE: not
   * `terminate()`: onnxruntime-node's binding does not survive it in the middle of a run, it aborts
   * the process.
   */
  async killWorker(): Promise<void> {
    if (this.#exited) return;
    const exited = new Promise((resolve) => this.#worker.once("exit", resolve));
    this.#worker.off("message", this.#settle);
    this.#worker.postMessage({ kind: "die" } satisfies WorkerRequest);
    this.#worker.ref();
    await exited;
  }

  #call<Kind extends CallKind>(
    kind: Kind,
    request: Calls[Kind]["request"],
    transfer: ArrayBuffer[] = [],
  ): Promise<Calls[Kind]["result"]> {
    return new Promise((resolve, reject) => {
      // The worker answers a request of `Kind` with a result of `Kind`.
      this.#pending = { resolve: resolve as Pending["resolve"], reject };
      this.#worker.ref();
      this.#worker.postMessage({ kind, ...request } as unknown as WorkerRequest, transfer);
    });
  }

  #settle = (reply: WorkerReply): void => {
    const pending = this.#pending;
    this.#pending = undefined;
    this.#worker.unref();
    if (reply.ok) pending?.resolve(reply.result);
    else pending?.reject(toError(reply));
  };

  #died(error: DenseMambaError): void {
    this.#guard.fail(error);
    this.#pending?.reject(error);
    this.#pending = undefined;
  }
}

/**
 * From TypeScript sources (tests, `npm run dev`) the worker needs tsx, which neither vitest nor tsx
 * itself hands down to workers on Node 20; so it starts with a line that registers it.
 */
function startWorker(workerData: WorkerSettings): Worker {
  const options = { workerData, name: "densemamba-runtime" };
  if (!import.meta.url.endsWith(".ts")) return new Worker(new URL("./worker.js", import.meta.url), options);
  const tsx = JSON.stringify(import.meta.resolve("tsx/esm/api"));
  const worker = JSON.stringify(new URL("./worker.ts", import.meta.url));
  const start = `import { register } from ${tsx}; register(); await import(${worker});`;
  return new Worker(new URL(`data:text/javascript,${encodeURIComponent(start)}`), options);
}

function toInt64(values: ArrayLike<number>): BigInt64Array<ArrayBuffer> {
  const target = new BigInt64Array(values.length);
  writeInt64(target, values);
  return target;
}

/** The binding has no memory of a device: states would cross the bus twice a step. */
function noCuda(): DenseMambaError {
  return new DenseMambaError(
    "device_unavailable",
    "the portable runner runs on the CPU alone (CPUExecutionProvider); the native runner runs on CUDA",
  );
}

function workerDied(how: string, cause?: unknown): DenseMambaError {
  return new DenseMambaError("runtime_fault", `the portable runner's worker died: ${how}`, { cause });
}

function toError({ code, message }: Extract<WorkerReply, { ok: false }>): Error {
  return code === "assertion" ? new AssertionError({ message }) : new DenseMambaError(code, message);
}
