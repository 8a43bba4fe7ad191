/**
 * ONNX Runtime's C API as typed calls: statuses become errors, and every object it makes is a
 * `Handle` that is released once and not used after that. Knows nothing of models or slots.
 */
import { strict as assert } from "node:assert";
import path from "node:path";
import { DenseMambaError, type ErrorCode } from "../../errors.ts";
import { findOrtLibrary, openableProviders, providerLibrary } from "../ort-library.ts";
import { withoutTrace } from "./cuda-error.ts";
import type { KernelLibrary } from "./kernel-library.ts";
import { addressOf, decodePointer, decodeString, loadOrtTable, type OrtFunctions, type Status } from "./ort-table.ts";
import { NameArray, PointerArray } from "./pointer-array.ts";

export type HandleKind =
  | "Env"
  | "MemoryInfo"
  | "Session"
  | "Value"
  | "RunOptions"
  | "SessionOptions"
  | "CUDAProviderOptions";

const SEVERITY_FATAL = 4; // failures come back as statuses; printing them as well would only repeat them
const OPTIMIZATION_ALL = 99;
const DEVICE_ALLOCATOR = 0;
const ARENA_ALLOCATOR = 1;
const DEFAULT_MEMORY = 0;
const ELEMENT_TYPES = { float32: 1, int64: 7, float16: 10 } as const;

export type ElementType = keyof typeof ELEMENT_TYPES;

/**
 * Owns one object of the C API. Released once, through `OrtApi.release`; its address cannot be read
 * after that.
 */
export class Handle {
  readonly kind: HandleKind;
  #address: bigint;

  constructor(kind: HandleKind, address: bigint) {
    this.kind = kind;
    this.#address = address;
  }

  get address(): bigint {
    assert(this.#address !== 0n, `use after release: Ort${this.kind}`);
    return this.#address;
  }

  /** For `OrtApi.release` alone. */
  take(): bigint {
    assert(this.#address !== 0n, `double release: Ort${this.kind}`);
    const address = this.#address;
    this.#address = 0n;
    return address;
  }
}

/**
 * The caller must keep all of it, and every tensor's data, alive and unmoved until the call has
 * ended.
 */
export interface RunArguments {
  readonly session: Handle;
  readonly runOptions: Handle;
  /** `const char *` each. */
  readonly inputNames: PointerArray;
  /**
   * `OrtValue *` each, in the order of the names; likewise `outputs`, which the run writes into.
   */
  readonly inputs: PointerArray;
  readonly outputNames: PointerArray;
  readonly outputs: PointerArray;
  /** Outputs before this one are computed but not fetched. */
  readonly firstOutput: number;
}

export interface SessionSettings {
  readonly numThreads: number;
  /** The CUDA provider's own options, by ONNX Runtime's names; undefined leaves it out. */
  readonly cuda: Readonly<Record<string, string>> | undefined;
  /** Our own operators, if the graph has any. */
  readonly kernels: KernelLibrary | undefined;
  readonly config: Readonly<Record<string, string>>;
}

export interface OrtApiOptions {
  /**
   * Track every live object, check the values of each run against them, and the count on
   * `assertNothingLive`.
   */
  readonly checked?: boolean;
  /** undefined: onnxruntime-node's. */
  readonly libraryPath?: string | undefined;
}

export class OrtApi {
  readonly version: string;
  /** Execution providers that can be opened, e.g. `CPUExecutionProvider`. */
  readonly providers: readonly string[];
  readonly #libraryPath: string;
  readonly #functions: OrtFunctions;
  readonly #base: bigint;
  /** Address → kind; undefined unless checked. */
  readonly #live: Map<bigint, HandleKind> | undefined;

  /**
   * @throws `device_unavailable` if the library does not load, is too old, or is not what its table
   * says.
   */
  constructor({ checked = false, libraryPath = findOrtLibrary() }: OrtApiOptions = {}) {
    const { functions, version, base } = loadOrtTable(libraryPath);
    this.#libraryPath = libraryPath;
    this.#functions = functions;
    this.#base = base;
    this.version = version;
    this.#live = checked ? new Map() : undefined;
    this.providers = openableProviders(this.#availableProviders(), libraryPath);
    if (!this.providers.includes("CPUExecutionProvider")) {
      throw new DenseMambaError(
        "device_unavailable",
        `ONNX Runtime ${version} at ${libraryPath} lists no CPUExecutionProvider, only ${this.providers.join(", ") || "none"}`,
      );
    }
  }

  /** The CUDA provider's file. @throws `device_unavailable` if there is none */
  cudaProvider(): string {
    if (!this.providers.includes("CUDAExecutionProvider")) throw this.#noCuda("its library is not there");
    return path.join(path.dirname(this.#libraryPath), providerLibrary("CUDAExecutionProvider"));
  }

  createEnv(): Handle {
    return this.#create("Env", "runtime_fault", (out) => this.#functions.CreateEnv(SEVERITY_FATAL, "densemamba", out));
  }

  createCpuMemoryInfo(): Handle {
    return this.#create("MemoryInfo", "runtime_fault", (out) =>
      this.#functions.CreateCpuMemoryInfo(ARENA_ALLOCATOR, DEFAULT_MEMORY, out),
    );
  }

  /** Of the first CUDA device. */
  createCudaMemoryInfo(): Handle {
    return this.#create("MemoryInfo", "device_unavailable", (out) =>
      this.#functions.CreateMemoryInfo("Cuda", DEVICE_ALLOCATOR, 0, DEFAULT_MEMORY, out),
    );
  }

  createRunOptions(config: Readonly<Record<string, string>> = {}): Handle {
    const options = this.#create("RunOptions", "runtime_fault", (out) => this.#functions.CreateRunOptions(out));
    for (const [key, value] of Object.entries(config)) {
      this.#check("runtime_fault", this.#functions.AddRunConfigEntry(options.address, key, value));
    }
    return options;
  }

  /**
   * Makes the run in flight with these options, and all later ones, fail at its next node. From any
   * thread.
   */
  setTerminate(runOptions: Handle): void {
    this.#check("runtime_fault", this.#functions.RunOptionsSetTerminate(runOptions.address));
  }

  /** @throws `device_unavailable` if CUDA is asked for and does not open. */
  createSessionOptions({ numThreads, cuda, kernels, config }: SessionSettings): Handle {
    const fn = this.#functions;
    const options = this.#create("SessionOptions", "runtime_fault", (out) => fn.CreateSessionOptions(out));
    try {
      const check = (status: Status): void => this.#check("runtime_fault", status);
      check(fn.SetSessionLogSeverityLevel(options.address, SEVERITY_FATAL));
      check(fn.SetSessionGraphOptimizationLevel(options.address, OPTIMIZATION_ALL));
      check(fn.SetIntraOpNumThreads(options.address, numThreads));
      check(fn.DisableMemPattern(options.address));
      for (const [key, value] of Object.entries(config)) check(fn.AddSessionConfigEntry(options.address, key, value));
      if (kernels !== undefined) check(kernels.register(options.address, this.#base));
      if (cuda !== undefined) this.#appendCuda(options, cuda);
      return options;
    } catch (error) {
      this.release(options);
      throw error;
    }
  }

  /** Off the event loop. @throws `invalid_artifact` with ONNX Runtime's message. */
  async createSession(env: Handle, modelPath: string, options: Handle): Promise<Handle> {
    const out = new PointerArray(1);
    const status = await new Promise<Status>((resolve, reject) => {
      this.#functions.CreateSession.async(env.address, modelPath, options.address, out.address, (error, result) =>
        error === null ? resolve(result) : reject(error),
      );
    });
    this.#check("invalid_artifact", status);
    return this.#own("Session", out.values[0]!);
  }

  sessionNames(session: Handle): { inputs: string[]; outputs: string[] } {
    const fn = this.#functions;
    return {
      inputs: this.#names(session, fn.SessionGetInputCount, fn.SessionGetInputName),
      outputs: this.#names(session, fn.SessionGetOutputCount, fn.SessionGetOutputName),
    };
  }

  /** A tensor over `data`, which the caller keeps alive, unmoved, for as long as the handle. */
  createTensor(memoryInfo: Handle, type: ElementType, data: ArrayBufferView, shape: readonly number[]): Handle {
    return this.createTensorAt(memoryInfo, type, { address: addressOf(data), numBytes: data.byteLength }, shape);
  }

  /** The same over memory of which only the address is known: a device's. */
  createTensorAt(
    memoryInfo: Handle,
    type: ElementType,
    { address, numBytes }: { readonly address: bigint; readonly numBytes: number },
    shape: readonly number[],
  ): Handle {
    const dims = BigInt64Array.from(shape, BigInt);
    return this.#create("Value", "runtime_fault", (out) =>
      this.#functions.CreateTensorWithDataAsOrtValue(
        memoryInfo.address,
        address,
        numBytes,
        dims,
        shape.length,
        ELEMENT_TYPES[type],
        out,
      ),
    );
  }

  /**
   * One forward pass on a thread of libuv's pool. @throws `runtime_fault` with ONNX Runtime's
   * message.
   */
  run(args: RunArguments): Promise<void> {
    const parameters = this.#runParameters(args);
    return new Promise((resolve, reject) => {
      this.#functions.Run.async(...parameters, (error, status) => {
        try {
          if (error !== null) throw error;
          this.#check("runtime_fault", status);
          resolve();
        } catch (failure) {
          reject(failure);
        }
      });
    });
  }

  /** The same on the calling thread, which waits. @throws as `run` does */
  runBlocking(args: RunArguments): void {
    this.#check("runtime_fault", this.#functions.Run(...this.#runParameters(args)));
  }

  release(handle: Handle): void {
    this.#functions[`Release${handle.kind}`](this.#take(handle));
  }

  /** The same on another thread: a session gives back all of a model's memory. */
  releaseOffThread(handle: Handle): Promise<void> {
    const address = this.#take(handle);
    return new Promise((resolve, reject) => {
      this.#functions[`Release${handle.kind}`].async(address, (error) => (error === null ? resolve() : reject(error)));
    });
  }

  #take(handle: Handle): bigint {
    const address = handle.take();
    this.#live?.delete(address);
    return address;
  }

  /** Objects created here and not yet released; undefined unless checked. */
  get numLive(): number | undefined {
    return this.#live?.size;
  }

  /** Checked mode only: fails if something created here has not been released. */
  assertNothingLive(): void {
    const kinds = [...(this.#live?.values() ?? [])];
    assert(kinds.length === 0, `never released: ${kinds.map((kind) => `Ort${kind}`).join(", ")}`);
  }

  #appendCuda(options: Handle, settings: Readonly<Record<string, string>>): void {
    const fn = this.#functions;
    const cudaOptions = this.#create("CUDAProviderOptions", "device_unavailable", (out) =>
      fn.CreateCUDAProviderOptions(out),
    );
    try {
      const keys = new NameArray(Object.keys(settings));
      const values = new NameArray(Object.values(settings));
      this.#check(
        "device_unavailable",
        fn.UpdateCUDAProviderOptions(cudaOptions.address, keys.address, values.address, keys.length),
      );
      this.#check(
        "device_unavailable",
        fn.SessionOptionsAppendExecutionProvider_CUDA_V2(options.address, cudaOptions.address),
      );
    } catch (error) {
      throw this.#noCuda(error instanceof Error ? error.message : String(error), error);
    } finally {
      this.release(cudaOptions);
    }
  }

  #noCuda(reason: string, cause?: unknown): DenseMambaError {
    return new DenseMambaError(
      "device_unavailable",
      `device cuda is not available (${reason}); ONNX Runtime ${this.version} here has ${this.providers.join(", ")}`,
      { cause },
    );
  }

  #availableProviders(): string[] {
    const names = new PointerArray(1);
    const length = new Int32Array(new ArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
    this.#check("device_unavailable", this.#functions.GetAvailableProviders(names.values, length));
    const array = names.values[0]!;
    try {
      return Array.from({ length: length[0]! }, (_, index) => decodeString(decodePointer(array, index)));
    } finally {
      this.#check("device_unavailable", this.#functions.ReleaseAvailableProviders(array, length[0]!));
    }
  }

  #names(
    session: Handle,
    getCount: OrtFunctions["SessionGetInputCount"],
    getName: OrtFunctions["SessionGetInputName"],
  ): string[] {
    const out = new PointerArray(1);
    this.#check("invalid_artifact", this.#functions.GetAllocatorWithDefaultOptions(out.values));
    const allocator = out.values[0]!; // the library's own, never freed
    this.#check("invalid_artifact", getCount(session.address, out.values));
    return Array.from({ length: Number(out.values[0]) }, (_, index) => {
      this.#check("invalid_artifact", getName(session.address, index, allocator, out.values));
      const address = out.values[0]!;
      const name = decodeString(address);
      this.#check("invalid_artifact", this.#functions.AllocatorFree(allocator, address));
      return name;
    });
  }

  #create(kind: HandleKind, code: ErrorCode, create: (out: BigUint64Array) => Status): Handle {
    const out = new PointerArray(1);
    this.#check(code, create(out.values));
    return this.#own(kind, out.values[0]!);
  }

  #own(kind: HandleKind, address: bigint): Handle {
    this.#live?.set(address, kind);
    return new Handle(kind, address);
  }

  /** Turns a status into an error and releases it. */
  #check(code: ErrorCode, status: Status): void {
    if (status === null) return;
    const message = this.#functions.GetErrorMessage(status);
    this.#functions.ReleaseStatus(status);
    throw new DenseMambaError(code, `ONNX Runtime: ${withoutTrace(message)}`);
  }

  #runParameters(args: RunArguments): Parameters<OrtFunctions["Run"]> {
    const { session, runOptions, inputNames, inputs, outputNames, outputs, firstOutput } = args;
    this.#assertValuesLive(inputs, 0);
    this.#assertValuesLive(outputs, firstOutput);
    return [
      session.address,
      runOptions.address,
      inputNames.address,
      inputs.address,
      inputs.length,
      outputNames.addressFrom(firstOutput),
      outputs.length - firstOutput,
      outputs.addressFrom(firstOutput),
    ];
  }

  #assertValuesLive({ values, length }: PointerArray, start: number): void {
    if (this.#live === undefined) return;
    for (const address of values.subarray(start, length)) {
      assert(this.#live.get(address) === "Value", `use after release: the run's value at 0x${address.toString(16)}`);
    }
  }
}
