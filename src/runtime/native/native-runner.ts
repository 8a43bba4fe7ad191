/**
 * The `native` runner: ONNX Runtime through its C API. States are updated in place, a step in the steady state allocates
 * nothing, and the computing happens on another thread, so that the event loop stays free; but for runs that are shorter than
 * the way there and back. See docs/runtime.md.
 */
import type { Manifest } from "../../model/artifact.ts";
import { readManifest } from "../../model/manifest.ts";
import { CallGuard } from "../call-guard.ts";
import { chooseNumThreads, describeRunner } from "../describe-runner.ts";
import { assertRunInput } from "../run-input.ts";
import type { ModelRunner, RunInput, RunnerOptions, RunOutput } from "../runner.ts";
import { SlotStates } from "../slot-states.ts";
import { NativeSession } from "./native-session.ts";
import { RunBindings } from "./run-bindings.ts";
import { RunTimes } from "./run-times.ts";

export interface NativeRunnerOptions extends RunnerOptions {
  /** Check the lifetimes of values at every run, and that nothing is left at close. For tests. */
  readonly checked?: boolean;
  /** ONNX Runtime's session configuration entries, on top of our own. For measurements. */
  readonly sessionConfig?: Readonly<Record<string, string>>;
  /** Monotonic, in milliseconds. */
  readonly now?: () => number;
}

export class NativeRunner implements ModelRunner {
  readonly manifest: Manifest;
  readonly numSlots: number;
  readonly description: string;
  readonly #guard = new CallGuard("the native runner");
  readonly #session: NativeSession;
  readonly #states: SlotStates;
  readonly #bindings: RunBindings;
  readonly #times = new RunTimes();
  readonly #now: () => number;

  /**
   * Does not block the event loop while the model loads.
   * @throws `invalid_artifact`, `device_unavailable`.
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
      config: options.sessionConfig ?? {},
    });
    const description = describeRunner("native", options, session.api.version, numThreads, manifest);
    const now = options.now ?? (() => performance.now());
    return new NativeRunner(session, manifest, { numSlots: options.numSlots, description, now });
  }

  /** C objects not yet released; undefined unless opened `checked`. */
  get numLive(): number | undefined {
    return this.#session.api.numLive;
  }

  private constructor(
    session: NativeSession,
    manifest: Manifest,
    { numSlots, description, now }: Pick<NativeRunner, "numSlots" | "description"> & { readonly now: () => number },
  ) {
    this.manifest = manifest;
    this.#now = now;
    this.numSlots = numSlots;
    this.description = description;
    this.#session = session;
    this.#states = new SlotStates(manifest.state, numSlots);
    this.#bindings = new RunBindings(session, manifest, this.#states);
  }

  run(input: RunInput): Promise<RunOutput> {
    return this.#guard.exclusive(async () => {
      assertRunInput(input, this.numSlots, this.manifest.sizes.vocabSize);
      const { args, output } = this.#bindings.bind(input);
      const numTokens = input.numSequences * input.numSteps;
      const isShort = this.#times.isShort(numTokens);
      if (isShort) await new Promise(setImmediate); // the event loop's turn, before it is held up
      const startedAtMs = this.#now();
      if (isShort) this.#session.api.runBlocking(args);
      else await this.#session.api.run(args);
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
    return this.#guard.close(() => {
      this.#bindings.release();
      this.#session.close();
    });
  }
}
