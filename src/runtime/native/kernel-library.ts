/**
 * Our own operators as a library for sessions: found or compiled, checked, loaded. Every failure is
 * an error with a reason, so that the caller can run without them. See docs/kernels.md.
 */
import type { LibraryHandle } from "koffi";
import { KERNELS_VERSION } from "../../model/artifact.ts";
import { isCuda } from "./cuda-build.ts";
import { unavailable } from "./kernel-build.ts";
import { type EnsureKernelsOptions, ensureKernelLibrary } from "./kernel-cache.ts";
import { checkKernelFile } from "./kernel-file.ts";
import type { Status } from "./ort-table.ts";
import { loadSharedLibrary } from "./shared-library.ts";

export interface KernelLibrary {
  readonly path: string;
  /** Of the operators' interface: a graph that was made for another is not computed by it. */
  readonly version: number;
  /**
   * The instruction set that its operators will use here: `avx512`, `avx2` or `baseline`; `cuda`,
   * or `emulated` in tests.
   */
  readonly instructionSet: string;
  readonly device: "cpu" | "cuda";
  /**
   * Of CUDA's: why the device cannot run it; undefined if it can, or if that cannot be told. Does
   * not throw.
   */
  readonly findMissingCode: (() => string | undefined) | undefined;
  /**
   * Makes a session's options know the operators. Takes the addresses of `OrtSessionOptions` and
   * `OrtApiBase`.
   */
  readonly register: (sessionOptions: bigint, apiBase: bigint) => Status;
}

export interface OpenKernelsOptions extends EnsureKernelsOptions {
  /** A library that was built before; undefined: the cache's. */
  readonly libraryPath: string | undefined;
  /** Instead of the best that this CPU has. For tests. */
  readonly instructionSet?: string;
}

/** @throws `device_unavailable` with the reason */
export async function openKernels(options: OpenKernelsOptions): Promise<KernelLibrary> {
  const path = options.libraryPath ?? (await ensureKernelLibrary(options));
  await checkKernelFile(path, { isCached: options.libraryPath === undefined });
  const library = load(path, options.instructionSet ?? null);
  const wanted = isCuda(options.target) ? "cuda" : "cpu";
  if (library.device !== wanted) throw unavailable(`${path} has the kernels for ${library.device}, not for ${wanted}`);
  return library;
}

/** Never emptied: sessions call into a library for as long as they live. */
const loaded: LibraryHandle[] = [];

function load(path: string, instructionSet: string | null): KernelLibrary {
  const { library, version, best, findMissingCode } = bind(path);
  if (best === null) throw unavailable(`${path} was built for CPUs with more instructions than this one has`);
  if (version !== KERNELS_VERSION) {
    throw unavailable(`${path} has version ${version} of the kernels, this program needs ${KERNELS_VERSION}`);
  }
  loaded.push(library);
  const register = library.func("densemamba_kernels_register", "void *", ["void *", "void *", "str"]);
  return {
    path,
    version,
    instructionSet: instructionSet ?? best,
    device: isCuda(best) ? "cuda" : "cpu",
    findMissingCode: findMissingCode && (() => findMissingCode() ?? undefined),
    register: (sessionOptions, apiBase) => register(sessionOptions, apiBase, instructionSet),
  };
}

interface Bound {
  readonly library: LibraryHandle;
  readonly version: number;
  readonly best: string | null;
  readonly findMissingCode: (() => string | null) | undefined;
}

function bind(path: string): Bound {
  let library: LibraryHandle;
  try {
    library = loadSharedLibrary(path);
  } catch (cause) {
    throw unavailable(`cannot load ${path}: ${messageOf(cause)}`, cause);
  }
  try {
    const version: number = library.func("densemamba_kernels_version", "int", [])();
    const best: string | null = library.func("densemamba_kernels_isa", "str", [])();
    const findMissingCode = best === "cuda" ? library.func("densemamba_cuda_missing_code", "str", []) : undefined;
    return { library, version, best, findMissingCode };
  } catch (cause) {
    throw unavailable(`${path} is not a library of densemamba's kernels: ${messageOf(cause)}`, cause);
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
