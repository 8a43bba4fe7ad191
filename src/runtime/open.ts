/** The entry to this folder: opens a runner by its kind. */
import { DenseMambaError } from "../errors.ts";
import type { CudaDevice, CudaReport } from "./native/cuda-inspect.ts";
import type { KernelLibrary, OpenKernelsOptions } from "./native/kernel-library.ts";
import type { PrebuiltPlaces } from "./native/prebuilt-kernels.ts";
import { findOrtLibrary, ortPackageVersion } from "./ort-library.ts";
import { PortableRunner } from "./portable/portable-runner.ts";
import type { ModelRunner, RunnerOptions } from "./runner.ts";

export type { CudaDevice, CudaReport, KernelLibrary, OpenKernelsOptions };

export type RunnerKind = "native" | "portable";

/** @throws `invalid_artifact`, `device_unavailable`. */
export async function openRunner(kind: RunnerKind, options: RunnerOptions): Promise<ModelRunner> {
  switch (kind) {
    case "native":
      return (await loadNative(() => import("./native/native-runner.ts"))).NativeRunner.open(options);
    case "portable":
      return PortableRunner.open(options);
  }
}

/**
 * The library of operators that the package brings, if any.
 * @throws `device_unavailable`, with the reason
 */
export async function findPrebuiltKernels(places: PrebuiltPlaces): Promise<string | undefined> {
  return (await loadNative(() => import("./native/prebuilt-kernels.ts"))).findPrebuilt(places);
}

/** Our own operators, for `RunnerOptions`. @throws `device_unavailable`, with the reason */
export async function openKernels(options: OpenKernelsOptions): Promise<KernelLibrary> {
  return (await loadNative(() => import("./native/kernel-library.ts"))).openKernels(options);
}

/**
 * Whether CUDA can work with onnxruntime-node's library. Undefined where only opening it can tell:
 * off Linux, or without koffi.
 * @param libraryPath where the loader looks first
 * @throws `device_unavailable` if onnxruntime-node has no build for this platform
 */
export async function inspectCuda(libraryPath: string | undefined): Promise<CudaReport | undefined> {
  if (process.platform !== "linux") return undefined;
  const native = await import("./native/cuda-inspect.ts").catch(() => undefined); // without koffi
  return native?.inspectCuda({ ortLibrary: findOrtLibrary(), ortVersion: ortPackageVersion(), libraryPath });
}

/**
 * No static imports: koffi's builds are optional packages, and `portable` must work without them.
 */
async function loadNative<Module>(load: () => Promise<Module>): Promise<Module> {
  try {
    return await load();
  } catch (cause) {
    throw new DenseMambaError(
      "device_unavailable",
      `the native runner needs koffi, which does not load here (${String(cause)}); the portable runner does not need it`,
      { cause },
    );
  }
}
