/**
 * Once before all tests: the kernels' library, so that no test compiles its own. Where it cannot be built the program runs
 * without, and test/runtime/kernels.test.ts says why.
 */
import { DenseMambaError } from "../../src/errors.ts";
import { ensureKernelLibrary } from "../../src/runtime/native/kernel-cache.ts";

export default async function buildKernels(): Promise<void> {
  try {
    process.env.DENSEMAMBA_KERNEL_LIBRARY = await ensureKernelLibrary({
      sourceDir: "kernels",
      cacheDir: ".cache",
      cc: process.env.CC || "cc",
      target: "all",
      onBuild: (message) => console.log(message),
    });
  } catch (error) {
    if (!(error instanceof DenseMambaError)) throw error;
    console.warn(error.message);
    process.env.DENSEMAMBA_KERNELS = "off";
  }
}
