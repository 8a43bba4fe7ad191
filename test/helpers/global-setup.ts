/** Once before all tests: builds what many tests use; and removes after them what they left. */
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { TestProject } from "vitest/node";
import { DenseMambaError } from "../../src/errors.ts";
import { ensureKernelLibrary } from "../../src/runtime/native/kernel-cache.ts";
import { buildProgram } from "./program.ts";

/** @returns what is called after all tests */
export default async function setUp(project: TestProject): Promise<(() => void) | undefined> {
  // Vitest calls this for each project.
  if (process.env.TESTS_SET_UP === "yes") return undefined;
  process.env.TESTS_SET_UP = "yes";
  const folder = mkdtempSync(path.join(tmpdir(), "densemamba-tests-"));
  chmodSync(folder, 0o1777); // as is the system's
  process.env.TMPDIR = folder;
  await buildKernels();
  buildProgram();
  project.onTestsRerun(async () => buildProgram());
  return () => rmSync(folder, { recursive: true, force: true });
}

/** If that is not possible the program runs without, and test/runtime/kernels.test.ts says why. */
async function buildKernels(): Promise<void> {
  try {
    process.env.DENSEMAMBA_KERNEL_LIBRARY = await ensureKernelLibrary({
      sourceDir: "kernels",
      cacheDir: ".cache",
      cc: process.env.CC || "cc",
      target: process.env.CI ? "all" : "host",
      onBuild: (message) => console.log(message),
    });
  } catch (error) {
    if (!(error instanceof DenseMambaError)) throw error;
    console.warn(error.message);
    process.env.DENSEMAMBA_KERNELS = "off";
  }
}
