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
import { openCudaRuntime } from "./cuda-runtime.ts";
import { CudaStream } from "./cuda-stream.ts";
import type { KernelLibrary } from "./kernel-library.ts";
import { type Handle, OrtApi } from "./ort-api.ts";

/** For runs on our stream: the caller waits for it. */
const NO_WAIT = { disable_synchronize_execution_providers: "1" };
/** Of a graph that is to be captured: a node on the CPU would be waited for in its midst. */
const ON_DEVICE = { "session.disable_cpu_ep_fallback": "1" };

/** A CUDA device, where states are. */
export interface Device {
  /** That all runs of the sessions are launched on. */
  readonly stream: CudaStream;
  /** Of its memory. */
  readonly memoryInfo: Handle;
  /** Whether single steps may be captured as CUDA graphs. */
  readonly capturesSteps: boolean;
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
  /** Undefined: the host. */
  readonly device: Device | undefined;
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
    let stream: CudaStream | undefined;
    const own = (handle: Handle): Handle => {
      owned.push(handle);
      return handle;
    };
    try {
      const env = own(api.createEnv());
      const memoryInfo = own(api.createCpuMemoryInfo());
      const isEmulated = kernels?.instructionSet === "emulated"; // on ONNX Runtime's CPU provider
      const hasDevice = options.device === "cuda" && !isEmulated;
      if (hasDevice) stream = new CudaStream(await openCudaRuntime(api.cudaProvider()));
      const runOptions = own(api.createRunOptions(stream === undefined ? {} : NO_WAIT));
      const cuda = stream && providerOptions(stream);
      const load = async (
        graph: string,
        steps: GraphSteps,
        config: Readonly<Record<string, string>> = {},
      ): Promise<Handle> => {
        const sessionOptions = api.createSessionOptions({
          numThreads: options.numThreads,
          cuda,
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
      // ONNX Runtime leaves one behind where a session before could not free its memory.
      stream?.runtime.forgetLastError();
      const device = stream && { stream, memoryInfo: own(api.createCudaMemoryInfo()), capturesSteps };
      return new NativeSession(api, { env, memoryInfo, runOptions, session }, decodeSession, device);
    } catch (error) {
      if (!stream?.isLost()) for (const handle of owned.toReversed()) api.release(handle); // see `close`
      callEachQuietly([() => stream?.destroy()]);
      throw error;
    }
  }

  private constructor(
    api: OrtApi,
    handles: Record<"env" | "memoryInfo" | "runOptions" | "session", Handle>,
    decodeSession: Handle | undefined,
    device: Device | undefined,
  ) {
    this.api = api;
    this.#env = handles.env;
    this.memoryInfo = handles.memoryInfo;
    this.device = device;
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

  /**
   * No run may be in flight, and every tensor must have been released. Where the device is lost to
   * this process, what there is stays: ONNX Runtime would end the process, since it cannot free
   * pinned memory.
   */
  async close(): Promise<void> {
    const { api, device } = this;
    if (device?.stream.isLost()) return;
    for (const session of [this.#decodeSession, this.#session]) {
      if (session === undefined) continue;
      if (device === undefined) await api.releaseOffThread(session);
      else api.release(session);
    }
    if (device !== undefined) api.release(device.memoryInfo);
    for (const handle of [this.runOptions, this.memoryInfo, this.#env]) api.release(handle);
    device?.stream.destroy();
    this.api.assertNothingLive();
  }
}

function providerOptions({ address }: CudaStream): Readonly<Record<string, string>> {
  return {
    use_tf32: "0", // or ONNX Runtime multiplies f32 matrices with 10 bits of each number
    has_user_compute_stream: "1",
    user_compute_stream: String(address),
  };
}
