/**
 * Opens a runner by its kind. The one entry to this folder for the rest of the house.
 */
import { DenseMambaError } from "../errors.ts";
import type { KernelLibrary, OpenKernelsOptions } from "./native/kernel-library.ts";
import { PortableRunner } from "./portable/portable-runner.ts";
import type { ModelRunner, RunnerOptions } from "./runner.ts";

export { listProviders } from "./providers.ts";
export type { KernelLibrary, OpenKernelsOptions };

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

/** Our own operators, for `RunnerOptions`. @throws `device_unavailable` with the reason why there are none. */
export async function openKernels(options: OpenKernelsOptions): Promise<KernelLibrary> {
  return (await loadNative(() => import("./native/kernel-library.ts"))).openKernels(options);
}

/** No static imports: koffi's builds are optional packages, and `portable` must work where there is none. */
async function loadNative<Module>(load: () => Promise<Module>): Promise<Module> {
  try {
    return await load();
  } catch (cause) {
    throw new DenseMambaError(
      "device_unavailable",
      `the native runner needs koffi, which does not load here (${String(cause)}); the portable runner does without it`,
      { cause },
    );
  }
}
