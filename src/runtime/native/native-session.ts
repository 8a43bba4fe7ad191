/**
 * Opens an artifact's graph with measured session settings (docs/runtime.md, "Threads"), and owns
 * what must live as long as the session. Knows neither slots nor runs.
 */
import path from "node:path";
import { DenseMambaError } from "../../errors.ts";
import type { Manifest } from "../../model/artifact.ts";
import { checkGraphNames, type GraphSteps } from "../graph-names.ts";
import { kernelsFor } from "../kernels-for.ts";
import { SESSION_CONFIG } from "../session-config.ts";
import { callEachQuietly } from "./call-each.ts";
import { orDeviceFailure } from "./cuda-error.ts";
import type { CudaMemory } from "./cuda-memory.ts";
import { forgetLastError } from "./cuda-runtime.ts";
import type { CudaStreams } from "./cuda-stream.ts";
import type { KernelLibrary } from "./kernel-library.ts";
import { type Handle, OrtApi } from "./ort-api.ts";

/** Without it ONNX Runtime multiplies f32 matrices with 10 bits of each number. */
const CUDA_CONFIG = { use_tf32: "0" };
/** For runs on our stream: the caller waits for it. */
const NO_WAIT = { disable_synchronize_execution_providers: "1" };
/** Of a graph that is to be captured: a node on the CPU would be waited for in its midst. */
const ON_DEVICE = { "session.disable_cpu_ep_fallback": "1" };

/** A device whose memory our own library can access. */
export interface Device {
  readonly memory: CudaMemory;
  /** Undefined: an emulation, whose memory is the host's. */
  readonly streams: CudaStreams | undefined;
  /** That all runs of the sessions are launched on. */
  readonly stream: bigint | undefined;
}

export interface NativeSessionOptions {
  readonly artifactDir: string;
  readonly numThreads: number;
  readonly device: "cpu" | "cuda";
  readonly kernels: KernelLibrary | undefined;
  readonly checked: boolean;
  /** In place of onnxruntime-node's. */
  readonly ortLibrary: string | undefined;
  /** Told why single steps cannot be captured. */
  readonly note: (message: string) => void;
  /** On top of `SESSION_CONFIG`. */
  readonly config: Readonly<Record<string, string>>;
}

export class NativeSession {
  readonly api: OrtApi;
  readonly #env: Handle;
  /** Of the host. */
  readonly memoryInfo: Handle;
  /** Where the states are: the host, or the device if our own library supports it. */
  readonly stateMemoryInfo: Handle;
  readonly device: Device | undefined;
  /** Whether single steps may be captured as CUDA graphs. */
  readonly capturesSteps: boolean;
  readonly runOptions: Handle;
  /** For any number of steps. */
  readonly #session: Handle;
  /** For one step, where the artifact has a graph of its own for it. */
  readonly #decodeSession: Handle | undefined;
  #isCutShort = false;

  /**
   * Loads off the event loop.
   * @throws `invalid_artifact` if the graph does not load or is not the manifest's;
   * `device_unavailable`.
   */
  static async open(manifest: Manifest, options: NativeSessionOptions): Promise<NativeSession> {
    const kernels = kernelsFor("native", manifest, options);
    const api = new OrtApi({ checked: options.checked, libraryPath: options.ortLibrary });
    const owned: Handle[] = [];
    let stream: bigint | undefined;
    const own = (handle: Handle): Handle => {
      owned.push(handle);
      return handle;
    };
    try {
      const env = own(api.createEnv());
      const memoryInfo = own(api.createCpuMemoryInfo());
      const isEmulated = kernels?.instructionSet === "emulated"; // on ONNX Runtime's CPU provider
      const hasDevice = options.device === "cuda" && !isEmulated;
      stream = kernels?.streams?.createStream();
      const runOptions = own(api.createRunOptions(stream === undefined ? {} : NO_WAIT));
      const onStream =
        stream === undefined ? {} : { has_user_compute_stream: "1", user_compute_stream: String(stream) };
      const load = async (
        graph: string,
        steps: GraphSteps,
        config: Readonly<Record<string, string>> = {},
      ): Promise<Handle> => {
        const sessionOptions = api.createSessionOptions({
          numThreads: options.numThreads,
          cuda: hasDevice ? { ...CUDA_CONFIG, ...onStream } : undefined,
          kernels,
          config: { ...SESSION_CONFIG, ...config, ...options.config },
        });
        try {
          const file = path.resolve(options.artifactDir, graph);
          const opening = api.createSession(env, file, sessionOptions);
          const session = own(
            await opening.catch((error: unknown) => {
              throw hasDevice ? orDeviceFailure(error) : error;
            }),
          );
          checkGraphNames(manifest, steps, api.sessionNames(session));
          return session;
        } finally {
          api.release(sessionOptions);
        }
      };
      const session = await load(manifest.graph, "any");
      const { decodeGraph } = manifest;
      let capturesSteps = stream !== undefined && decodeGraph !== undefined;
      let decodeSession: Handle | undefined;
      if (capturesSteps) {
        decodeSession = await load(decodeGraph!, "one", ON_DEVICE).catch((error: unknown) => {
          if (!(error instanceof DenseMambaError) || error.code !== "invalid_artifact") throw error;
          capturesSteps = false;
          options.note(`steps are not captured as CUDA graphs: ${error.message}`);
          return undefined;
        });
      }
      if (decodeGraph !== undefined) decodeSession ??= await load(decodeGraph, "one");
      if (hasDevice) forgetLastError();
      const memory = kernels?.memoryOn?.(stream ?? 0n);
      const stateMemoryInfo = memory && hasDevice ? own(api.createCudaMemoryInfo()) : memoryInfo;
      const handles = { env, memoryInfo, stateMemoryInfo, runOptions, session };
      const device = memory && { memory, streams: kernels?.streams, stream };
      return new NativeSession(api, handles, decodeSession, { device, capturesSteps });
    } catch (error) {
      for (const handle of owned.toReversed()) api.release(handle);
      if (stream !== undefined) callEachQuietly([() => kernels?.streams?.destroyStream(stream!)]);
      throw error;
    }
  }

  private constructor(
    api: OrtApi,
    handles: Record<"env" | "memoryInfo" | "stateMemoryInfo" | "runOptions" | "session", Handle>,
    decodeSession: Handle | undefined,
    { device, capturesSteps }: Pick<NativeSession, "device" | "capturesSteps">,
  ) {
    this.api = api;
    this.#env = handles.env;
    this.memoryInfo = handles.memoryInfo;
    this.stateMemoryInfo = handles.stateMemoryInfo;
    this.device = device;
    this.capturesSteps = capturesSteps;
    this.runOptions = handles.runOptions;
    this.#session = handles.session;
    this.#decodeSession = decodeSession;
  }

  /** The graph to run, and whose names it has. */
  graphFor(isSingleStep: boolean): { readonly session: Handle; readonly steps: GraphSteps } {
    return isSingleStep && this.#decodeSession !== undefined
      ? { session: this.#decodeSession, steps: "one" }
      : { session: this.#session, steps: "any" };
  }

  /** The run in flight fails at its next node, and so do all later ones. From any thread. */
  cutShort(): void {
    this.#isCutShort = true;
    this.api.setTerminate(this.runOptions);
  }

  get isCutShort(): boolean {
    return this.#isCutShort;
  }

  /** No run may be in flight, and every tensor must have been released. */
  close(): void {
    if (this.#decodeSession !== undefined) this.api.release(this.#decodeSession);
    if (this.stateMemoryInfo !== this.memoryInfo) this.api.release(this.stateMemoryInfo);
    for (const handle of [this.#session, this.runOptions, this.memoryInfo, this.#env]) this.api.release(handle);
    if (this.device?.stream !== undefined) this.device.streams?.destroyStream(this.device.stream);
    this.api.assertNothingLive();
  }
}
