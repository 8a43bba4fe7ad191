/** Once before all tests: builds what many tests use. */
import type { TestProject } from "vitest/node";
import { DenseMambaError } from "../../src/errors.ts";
import { ensureKernelLibrary } from "../../src/runtime/native/kernel-cache.ts";
import { buildProgram } from "./program.ts";

export default async function setUp(project: TestProject): Promise<void> {
  // Vitest calls this for each project.
  if (process.env.TESTS_SET_UP === "yes") return;
  process.env.TESTS_SET_UP = "yes";
  await buildKernels();
  buildProgram();
  project.onTestsRerun(async () => buildProgram());
}

/** If that is not possible the program runs without, and test/runtime/kernels.test.ts says why. */
async function buildKernels(): Promise<void> {
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
