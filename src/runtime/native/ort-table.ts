/**
 * The functions of ONNX Runtime's C API that we call: their positions in the table `OrtApi`, their
 * C signatures, and the koffi binding. A wrong line here is a crash of the process, not an
 * exception: only `ort-api.ts` may use it.
 */
import koffi, { type LibraryHandle } from "koffi";
import { DenseMambaError } from "../../errors.ts";
import { loadSharedLibrary } from "./shared-library.ts";

/**
 * The version whose table we ask for. The table only ever grows, so every later library serves it.
 */
const API_VERSION = 17;

/** A C pointer argument: an address, or a typed array, whose data koffi passes in place. */
export type Pointer = bigint | BigUint64Array | BigInt64Array | Int32Array;
/** `OrtStatus*`: null means success. */
export type Status = bigint | null;
type NativeFunction<Args extends unknown[], Result> = ((...args: Args) => Result) & {
  async(...args: [...Args, (error: Error | null, result: Result) => void]): void;
};
type Release = NativeFunction<[address: bigint], void>;

export interface OrtFunctions {
  GetErrorMessage: NativeFunction<[status: bigint], string>;
  CreateEnv: NativeFunction<[severity: number, logId: string, out: Pointer], Status>;
  CreateSession: NativeFunction<[env: bigint, path: string, options: bigint, out: Pointer], Status>;
  Run: NativeFunction<
    [
      session: bigint,
      runOptions: bigint,
      inputNames: bigint,
      inputs: bigint,
      numInputs: number,
      outputNames: bigint,
      numOutputs: number,
      outputs: bigint,
    ],
    Status
  >;
  CreateSessionOptions: NativeFunction<[out: Pointer], Status>;
  DisableMemPattern: NativeFunction<[options: bigint], Status>;
  SetSessionLogSeverityLevel: NativeFunction<[options: bigint, severity: number], Status>;
  SetSessionGraphOptimizationLevel: NativeFunction<[options: bigint, level: number], Status>;
  SetIntraOpNumThreads: NativeFunction<[options: bigint, numThreads: number], Status>;
  SessionGetInputCount: NativeFunction<[session: bigint, out: Pointer], Status>;
  SessionGetOutputCount: NativeFunction<[session: bigint, out: Pointer], Status>;
  SessionGetInputName: NativeFunction<[session: bigint, index: number, allocator: bigint, out: Pointer], Status>;
  SessionGetOutputName: NativeFunction<[session: bigint, index: number, allocator: bigint, out: Pointer], Status>;
  CreateRunOptions: NativeFunction<[out: Pointer], Status>;
  RunOptionsSetTerminate: NativeFunction<[runOptions: bigint], Status>;
  AddRunConfigEntry: NativeFunction<[runOptions: bigint, key: string, value: string], Status>;
  CreateTensorWithDataAsOrtValue: NativeFunction<
    [memoryInfo: bigint, data: bigint, numBytes: number, shape: Pointer, rank: number, type: number, out: Pointer],
    Status
  >;
  CreateMemoryInfo: NativeFunction<
    [name: string, allocatorType: number, deviceId: number, memoryType: number, out: Pointer],
    Status
  >;
  CreateCpuMemoryInfo: NativeFunction<[allocatorType: number, memoryType: number, out: Pointer], Status>;
  AllocatorFree: NativeFunction<[allocator: bigint, data: bigint], Status>;
  GetAllocatorWithDefaultOptions: NativeFunction<[out: Pointer], Status>;
  ReleaseEnv: Release;
  ReleaseStatus: Release;
  ReleaseMemoryInfo: Release;
  ReleaseSession: Release;
  ReleaseValue: Release;
  ReleaseRunOptions: Release;
  ReleaseSessionOptions: Release;
  GetAvailableProviders: NativeFunction<[outNames: Pointer, outLength: Pointer], Status>;
  ReleaseAvailableProviders: NativeFunction<[names: bigint, length: number], Status>;
  AddSessionConfigEntry: NativeFunction<[options: bigint, key: string, value: string], Status>;
  SessionOptionsAppendExecutionProvider_CUDA_V2: NativeFunction<[options: bigint, cudaOptions: bigint], Status>;
  CreateCUDAProviderOptions: NativeFunction<[out: Pointer], Status>;
  UpdateCUDAProviderOptions: NativeFunction<[options: bigint, keys: bigint, values: bigint, count: number], Status>;
  ReleaseCUDAProviderOptions: Release;
}

const POINTER = "void *";
const STATUS = "void *";
/** `ORTCHAR_T *` */
const PATH = process.platform === "win32" ? "str16" : "str";

/**
 * Name → [position in `struct OrtApi`, result, arguments]. Positions are those of API version 17
 * and never change.
 */
const TABLE: Readonly<Record<keyof OrtFunctions, readonly [index: number, result: string, args: readonly string[]]>> = {
  GetErrorMessage: [2, "str", [POINTER]],
  CreateEnv: [3, STATUS, ["int", "str", POINTER]],
  CreateSession: [7, STATUS, [POINTER, PATH, POINTER, POINTER]],
  Run: [9, STATUS, [POINTER, POINTER, POINTER, POINTER, "size_t", POINTER, "size_t", POINTER]],
  CreateSessionOptions: [10, STATUS, [POINTER]],
  DisableMemPattern: [17, STATUS, [POINTER]],
  SetSessionLogSeverityLevel: [22, STATUS, [POINTER, "int"]],
  SetSessionGraphOptimizationLevel: [23, STATUS, [POINTER, "int"]],
  SetIntraOpNumThreads: [24, STATUS, [POINTER, "int"]],
  SessionGetInputCount: [30, STATUS, [POINTER, POINTER]],
  SessionGetOutputCount: [31, STATUS, [POINTER, POINTER]],
  SessionGetInputName: [36, STATUS, [POINTER, "size_t", POINTER, POINTER]],
  SessionGetOutputName: [37, STATUS, [POINTER, "size_t", POINTER, POINTER]],
  CreateRunOptions: [39, STATUS, [POINTER]],
  RunOptionsSetTerminate: [46, STATUS, [POINTER]],
  CreateTensorWithDataAsOrtValue: [49, STATUS, [POINTER, POINTER, "size_t", POINTER, "size_t", "int", POINTER]],
  CreateMemoryInfo: [68, STATUS, ["str", "int", "int", "int", POINTER]],
  CreateCpuMemoryInfo: [69, STATUS, ["int", "int", POINTER]],
  AllocatorFree: [76, STATUS, [POINTER, POINTER]],
  GetAllocatorWithDefaultOptions: [78, STATUS, [POINTER]],
  ReleaseEnv: [92, "void", [POINTER]],
  ReleaseStatus: [93, "void", [POINTER]],
  ReleaseMemoryInfo: [94, "void", [POINTER]],
  ReleaseSession: [95, "void", [POINTER]],
  ReleaseValue: [96, "void", [POINTER]],
  ReleaseRunOptions: [97, "void", [POINTER]],
  ReleaseSessionOptions: [100, "void", [POINTER]],
  GetAvailableProviders: [125, STATUS, [POINTER, POINTER]],
  ReleaseAvailableProviders: [126, STATUS, [POINTER, "int"]],
  AddSessionConfigEntry: [130, STATUS, [POINTER, "str", "str"]],
  AddRunConfigEntry: [165, STATUS, [POINTER, "str", "str"]],
  SessionOptionsAppendExecutionProvider_CUDA_V2: [204, STATUS, [POINTER, POINTER]],
  CreateCUDAProviderOptions: [205, STATUS, [POINTER]],
  UpdateCUDAProviderOptions: [206, STATUS, [POINTER, POINTER, POINTER, "size_t"]],
  ReleaseCUDAProviderOptions: [208, "void", [POINTER]],
};

export interface OrtTable {
  readonly functions: OrtFunctions;
  /** Of the library, e.g. `1.30.0`. */
  readonly version: string;
  /** `const OrtApiBase*`, for libraries of operators. */
  readonly base: bigint;
}

/**
 * Never emptied: ONNX Runtime is not made to be unloaded. Besides, one binding serves every runner.
 */
const loaded = new Map<string, { readonly library: LibraryHandle; readonly table: OrtTable }>();

/**
 * Loads the library and binds the table, once in the process.
 * @throws `device_unavailable` if the library does not load or is too old for `API_VERSION`.
 */
export function loadOrtTable(libraryPath: string): OrtTable {
  const known = loaded.get(libraryPath);
  if (known !== undefined) return known.table;
  let library: LibraryHandle;
  let base: bigint;
  try {
    library = loadSharedLibrary(libraryPath);
    base = library.func("OrtGetApiBase", POINTER, [])();
  } catch (cause) {
    throw new DenseMambaError("device_unavailable", `cannot load ${libraryPath}: ${String(cause)}`, { cause });
  }
  // struct OrtApiBase { const OrtApi* (*GetApi)(uint32_t version); const char*
  // (*GetVersionString)(void); }
  const version: string = bind(base, 1, "str", [])();
  const api: bigint | null = bind(base, 0, POINTER, ["uint32_t"])(API_VERSION);
  if (api === null) {
    throw new DenseMambaError(
      "device_unavailable",
      `ONNX Runtime ${version} in ${libraryPath} has no C API version ${API_VERSION}`,
    );
  }
  const entries = Object.entries(TABLE).map(([name, [index, result, args]]) => [name, bind(api, index, result, args)]);
  const table = { functions: Object.fromEntries(entries) as OrtFunctions, version, base };
  loaded.set(libraryPath, { library, table });
  return table;
}

/** The function whose pointer is the `index`th of the struct at `struct`. */
function bind(struct: bigint, index: number, result: string, args: readonly string[]) {
  const pointer: bigint = koffi.decode(struct, index * koffi.sizeof(POINTER), POINTER);
  return koffi.decode(pointer, koffi.proto(result, [...args]));
}

/**
 * Stable for as long as the view's ArrayBuffer lives: buffers that were made as ArrayBuffers never
 * move.
 */
export function addressOf(view: ArrayBufferView): bigint {
  return koffi.address(view);
}

export function decodeString(address: bigint): string {
  return koffi.decode.string(address);
}

/** Of a C array of pointers. */
export function decodePointer(array: bigint, index: number): bigint {
  return koffi.decode(array, index * koffi.sizeof(POINTER), POINTER);
}
