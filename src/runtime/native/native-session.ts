/**
 * Opens an artifact's graph with the session settings that we chose by measurement (docs/runtime.md, "Threads"), and owns
 * what has to live as long as the session. Knows nothing of slots or runs.
 */
import path from "node:path";
import type { Manifest } from "../../model/artifact.ts";
import { checkGraphNames } from "../graph-names.ts";
import { kernelsFor } from "../kernels-for.ts";
import { SESSION_CONFIG } from "../session-config.ts";
import type { KernelLibrary } from "./kernel-library.ts";
import { type Handle, OrtApi } from "./ort-api.ts";

export interface NativeSessionOptions {
  readonly artifactDir: string;
  readonly numThreads: number;
  readonly device: "cpu" | "cuda";
  readonly kernels: KernelLibrary | undefined;
  readonly checked: boolean;
  /** On top of `SESSION_CONFIG`. */
  readonly config: Readonly<Record<string, string>>;
}

export class NativeSession {
  readonly api: OrtApi;
  readonly #env: Handle;
  readonly memoryInfo: Handle;
  readonly runOptions: Handle;
  /** For any number of steps. */
  readonly #session: Handle;
  /** For one step, where the artifact has a graph of its own for it. */
  readonly #decodeSession: Handle | undefined;

  /**
   * Loads off the event loop.
   * @throws `invalid_artifact` if the graph does not load or is not the manifest's; `device_unavailable`.
   */
  static async open(manifest: Manifest, options: NativeSessionOptions): Promise<NativeSession> {
    const kernels = kernelsFor("native", manifest, options);
    const api = new OrtApi({ checked: options.checked });
    const owned: Handle[] = [];
    const own = (handle: Handle): Handle => {
      owned.push(handle);
      return handle;
    };
    try {
      const env = own(api.createEnv());
      const memoryInfo = own(api.createCpuMemoryInfo());
      const runOptions = own(api.createRunOptions());
      const sessionOptions = api.createSessionOptions({
        numThreads: options.numThreads,
        cuda: options.device === "cuda",
        kernels,
        config: { ...SESSION_CONFIG, ...options.config },
      });
      try {
        const load = async (graph: string): Promise<Handle> => {
          const file = path.resolve(options.artifactDir, graph);
          const session = own(await api.createSession(env, file, sessionOptions));
          checkGraphNames(manifest.state, api.sessionNames(session));
          return session;
        };
        const session = await load(manifest.graph);
        const decodeSession = manifest.decodeGraph === undefined ? undefined : await load(manifest.decodeGraph);
        return new NativeSession(api, { env, memoryInfo, runOptions, session }, decodeSession);
      } finally {
        api.release(sessionOptions);
      }
    } catch (error) {
      for (const handle of owned.toReversed()) api.release(handle);
      throw error;
    }
  }

  private constructor(
    api: OrtApi,
    handles: Record<"env" | "memoryInfo" | "runOptions" | "session", Handle>,
    decodeSession: Handle | undefined,
  ) {
    this.api = api;
    this.#env = handles.env;
    this.memoryInfo = handles.memoryInfo;
    this.runOptions = handles.runOptions;
    this.#session = handles.session;
    this.#decodeSession = decodeSession;
  }

  sessionFor(numSteps: number): Handle {
    return numSteps === 1 && this.#decodeSession !== undefined ? this.#decodeSession : this.#session;
  }

  /** No run may be in flight, and every tensor must have been released. */
  close(): void {
    if (this.#decodeSession !== undefined) this.api.release(this.#decodeSession);
    for (const handle of [this.#session, this.runOptions, this.memoryInfo, this.#env]) this.api.release(handle);
    this.api.assertNothingLive();
  }
}
