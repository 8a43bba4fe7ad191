/**
 * Opens a runner by its kind. The one entry to this folder for the rest of the house.
 */
import { DenseMambaError } from "../errors.ts";
import { PortableRunner } from "./portable/portable-runner.ts";
import type { ModelRunner, RunnerOptions } from "./runner.ts";

export { listProviders } from "./providers.ts";

export type RunnerKind = "native" | "portable";

/** @throws `invalid_artifact`, `device_unavailable`. */
export async function openRunner(kind: RunnerKind, options: RunnerOptions): Promise<ModelRunner> {
  switch (kind) {
    case "native":
      return (await loadNative()).NativeRunner.open(options);
    case "portable":
      return PortableRunner.open(options);
  }
}

/** Not a static import: koffi's builds are optional packages, and `portable` must work where there is none. */
async function loadNative(): Promise<typeof import("./native/native-runner.ts")> {
  try {
    return await import("./native/native-runner.ts");
  } catch (cause) {
    throw new DenseMambaError(
      "device_unavailable",
      `the native runner needs koffi, which does not load here (${String(cause)}); the portable runner does without it`,
      { cause },
    );
  }
}
