/**
 * The `native` runner: ONNX Runtime through its C API. States are updated in place, a step in the steady state allocates
 * nothing, and the computing happens on another thread, so that the event loop stays free. See docs/runtime.md.
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

export interface NativeRunnerOptions extends RunnerOptions {
  /** Check the lifetimes of values at every run, and that nothing is left at close. For tests. */
  readonly checked?: boolean;
  /** ONNX Runtime's session configuration entries, on top of our own. For measurements. */
  readonly sessionConfig?: Readonly<Record<string, string>>;
}

export class NativeRunner implements ModelRunner {
  readonly manifest: Manifest;
  readonly numSlots: number;
  readonly description: string;
  readonly #guard = new CallGuard("the native runner");
  readonly #session: NativeSession;
  readonly #states: SlotStates;
  readonly #bindings: RunBindings;

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
    return new NativeRunner(session, manifest, options.numSlots, description);
  }

  /** C objects not yet released; undefined unless opened `checked`. */
  get numLive(): number | undefined {
    return this.#session.api.numLive;
  }

  private constructor(session: NativeSession, manifest: Manifest, numSlots: number, description: string) {
    this.manifest = manifest;
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
      await this.#session.api.run(args);
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
