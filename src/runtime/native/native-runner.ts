/**
 * The `native` runner: ONNX Runtime through its C API. States are updated in place, a step in the
 * steady state allocates nothing, and runs compute on another thread, except those that are shorter
 * than the switch. See docs/runtime.md.
 */
import type { Manifest } from "../../model/artifact.ts";
import { readManifest } from "../../model/manifest.ts";
import { CallGuard } from "../call-guard.ts";
import { chooseNumThreads, describeRunner } from "../describe-runner.ts";
import { assertRunInput, numTokensOf } from "../run-input.ts";
import type { ModelRunner, RunInput, RunnerOptions, RunOutput } from "../runner.ts";
import { SlotStates } from "../slot-states.ts";
import { callEach, callEachQuietly } from "./call-each.ts";
import { whileOpening } from "./cuda-error.ts";
import { CudaRuns } from "./cuda-runs.ts";
import { CudaStates } from "./cuda-states.ts";
import { preferHugePages } from "./libc.ts";
import { NativeSession } from "./native-session.ts";
import { RunBindings } from "./run-bindings.ts";
import { RunTimes } from "./run-times.ts";

export interface NativeRunnerOptions extends RunnerOptions {
  /** Check the lifetimes of values at every run, and that nothing is left at close. For tests. */
  readonly checked?: boolean;
  /** ONNX Runtime's session configuration entries, on top of our own. For measurements. */
  readonly sessionConfig?: Readonly<Record<string, string>>;
  /** Instead of onnxruntime-node's ONNX Runtime: for tests, with a provider next to it. */
  readonly ortLibrary?: string;
  /** Monotonic, in milliseconds. */
  readonly now?: () => number;
}

export class NativeRunner implements ModelRunner {
  readonly manifest: Manifest;
  readonly numSlots: number;
  readonly description: string;
  readonly #guard = new CallGuard("the native runner");
  readonly #session: NativeSession;
  readonly #states: SlotStates | CudaStates;
  readonly #runs: RunBindings | CudaRuns;
  readonly #times = new RunTimes();
  readonly #now: () => number;

  /**
   * Does not block the event loop while the model loads.
   * @throws `invalid_artifact`; `device_unavailable`, also if a device lacks the memory or fails
   * otherwise; `runtime_fault`
   */
  static async open(options: NativeRunnerOptions): Promise<NativeRunner> {
    const manifest = await readManifest(options.artifactDir);
    try {
      return await NativeRunner.#open(manifest, options);
    } catch (error) {
      if (options.device !== "cuda") throw error;
      throw whileOpening(error, `${manifest.name} with ${options.numSlots} slots`);
    }
  }

  static async #open(manifest: Manifest, options: NativeRunnerOptions): Promise<NativeRunner> {
    const numThreads = chooseNumThreads(options.numThreads);
    const session = await NativeSession.open(manifest, {
      artifactDir: options.artifactDir,
      numThreads,
      device: options.device,
      kernels: options.kernels,
      checked: options.checked ?? false,
      ortLibrary: options.ortLibrary,
      note: options.note ?? (() => {}),
      config: options.sessionConfig ?? {},
    });
    const description = describeRunner("native", options, session.api.version, numThreads, manifest);
    const now = options.now ?? (() => performance.now());
    const note = options.note ?? (() => {});
    try {
      return new NativeRunner(session, manifest, { numSlots: options.numSlots, description, now, note });
    } catch (error) {
      await session.close().catch(() => undefined); // a device lacks the memory for this many slots
      throw error;
    }
  }

  /** C objects not yet released; undefined unless opened `checked`. */
  get numLive(): number | undefined {
    return this.#session.api.numLive;
  }

  private constructor(
    session: NativeSession,
    manifest: Manifest,
    {
      numSlots,
      description,
      now,
      note,
    }: Pick<NativeRunner, "numSlots" | "description"> & {
      readonly now: () => number;
      readonly note: (message: string) => void;
    },
  ) {
    this.manifest = manifest;
    this.#now = now;
    this.numSlots = numSlots;
    this.description = description;
    this.#session = session;
    const { device } = session;
    if (device === undefined) {
      this.#states = new SlotStates(manifest.state, numSlots);
      for (const { data } of this.#states.tensors) preferHugePages(data);
      this.#runs = new RunBindings(session, manifest, this.#states);
      return;
    }
    const states = new CudaStates(manifest.state, numSlots, device.stream);
    this.#states = states;
    try {
      this.#runs = new CudaRuns({ session, manifest, states, device, note });
    } catch (error) {
      callEachQuietly([() => states.release()]);
      throw error;
    }
  }

  run(input: RunInput): Promise<RunOutput> {
    return this.#guard.exclusive(async () => {
      assertRunInput(input, this.numSlots, this.manifest);
      const { run, output } = this.#runs.bind(input);
      const numTokens = numTokensOf(input);
      const isShort = this.#times.isShort(numTokens);
      if (isShort) await new Promise(setImmediate); // the event loop's turn, before it is held up
      const startedAtMs = this.#now();
      await run(isShort);
      this.#times.record(numTokens, this.#now() - startedAtMs);
      return output;
    });
  }

  clearSlot(slot: number): Promise<void> {
    return this.#guard.exclusive(() => this.#states.clear(slot));
  }

  copySlot(from: number, to: number): Promise<void> {
    return this.#guard.exclusive(() => this.#states.copy(from, to));
  }

  swapSlots(a: number, b: number): Promise<void> {
    return this.#guard.exclusive(() => this.#states.swap(a, b));
  }

  readSlot(slot: number): Promise<Uint8Array> {
    return this.#guard.exclusive(() => this.#states.read(slot));
  }

  writeSlot(slot: number, state: Uint8Array): Promise<void> {
    return this.#guard.exclusive(() => this.#states.write(slot, state));
  }

  /** Cuts a run in flight short: it rejects with `runtime_fault`. */
  close(): Promise<void> {
    if (this.#guard.busy && !this.#guard.closing) this.#session.cutShort();
    return this.#guard.close(async () => {
      try {
        callEach([() => this.#runs.release(), () => this.#states instanceof CudaStates && this.#states.release()]);
      } finally {
        await this.#session.close();
      }
    });
  }
}
