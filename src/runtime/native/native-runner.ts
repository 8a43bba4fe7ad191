/**
 * The `native` runner: ONNX Runtime through its C API. States are updated in place, a step in the steady state allocates
 * nothing, and the computing happens on another thread, so that the event loop stays free; but for runs that are shorter than
 * the way there and back. See docs/runtime.md.
 */
import type { Manifest } from "../../model/artifact.ts";
import { readManifest } from "../../model/manifest.ts";
import { CallGuard } from "../call-guard.ts";
import { chooseNumThreads, describeRunner } from "../describe-runner.ts";
import { assertRunInput, isSingleStep, numTokensOf } from "../run-input.ts";
import type { ModelRunner, RunInput, RunnerOptions, RunOutput } from "../runner.ts";
import { SlotStates } from "../slot-states.ts";
import { callEach } from "./call-each.ts";
import { CudaGraphs } from "./cuda-graphs.ts";
import { CudaStates } from "./cuda-states.ts";
import { NativeSession } from "./native-session.ts";
import type { RunArguments } from "./ort-api.ts";
import { RunBindings } from "./run-bindings.ts";
import { RunTimes } from "./run-times.ts";

export interface NativeRunnerOptions extends RunnerOptions {
  /** Check the lifetimes of values at every run, and that nothing is left at close. For tests. */
  readonly checked?: boolean;
  /** ONNX Runtime's session configuration entries, on top of our own. For measurements. */
  readonly sessionConfig?: Readonly<Record<string, string>>;
  /** In place of the ONNX Runtime that onnxruntime-node ships: for tests, with a provider beside it. */
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
  readonly #bindings: RunBindings;
  readonly #graphs: CudaGraphs | undefined;
  readonly #times = new RunTimes();
  readonly #now: () => number;

  /**
   * Does not block the event loop while the model loads.
   * @throws `invalid_artifact`, `device_unavailable`; `runtime_fault` if a device has not the memory for so many slots.
   */
  static async open(options: NativeRunnerOptions): Promise<NativeRunner> {
    const manifest = await readManifest(options.artifactDir);
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
      session.close(); // a device has not the memory for so many slots
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
    const { device, capturesSteps } = session;
    this.#states = device
      ? new CudaStates(manifest.state, numSlots, device.memory)
      : new SlotStates(manifest.state, numSlots);
    this.#bindings = new RunBindings(session, manifest, this.#states);
    if (capturesSteps && device) this.#graphs = new CudaGraphs(session, this.#bindings.states, device, note);
  }

  run(input: RunInput): Promise<RunOutput> {
    return this.#guard.exclusive(async () => {
      assertRunInput(input, this.numSlots, this.manifest);
      const { args, output, host } = this.#bindings.bind(input);
      const numTokens = numTokensOf(input);
      const isShort = this.#times.isShort(numTokens);
      if (isShort) await new Promise(setImmediate); // the event loop's turn, before it is held up
      const startedAtMs = this.#now();
      const { api } = this.#session;
      const run = async (args: RunArguments) => (isShort ? api.runBlocking(args) : api.run(args));
      if (this.#graphs && isWholeStep(input)) {
        await this.#graphs.run(input.lengths.length, host, args, { run, isShort });
      } else await run(args);
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
    if (this.#guard.busy && !this.#guard.closing) this.#session.api.setTerminate(this.#session.runOptions);
    return this.#guard.close(() =>
      callEach([
        () => this.#graphs?.release(),
        () => this.#bindings.release(),
        () => this.#states instanceof CudaStates && this.#states.release(),
        () => this.#session.close(),
      ]),
    );
  }
}

/** A step of the first slots with a row of logits for each: what decoding makes again and again, in few shapes. */
function isWholeStep(input: RunInput): boolean {
  return input.firstSlot === 0 && isSingleStep(input) && input.logitRows.length === input.lengths.length;
}
