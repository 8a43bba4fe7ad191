/**
 * Whether an artifact's graph can run with the available operators: the same rule for both runners.
 */
import { DenseMambaError, type ErrorCode } from "../errors.ts";
import type { Manifest } from "../model/artifact.ts";
import type { KernelLibrary } from "./native/kernel-library.ts";
import type { RunnerOptions } from "./runner.ts";

/**
 * The operators to register with the session; undefined if the graph has none of ours.
 * @throws `invalid_artifact` if they are missing, of another version, or not for this runner;
 * `device_unavailable` if they, or the precision, are not for this device
 */
export function kernelsFor(
  kind: "native" | "portable",
  { name, kernels: needed, device: neededDevice = "cpu", precision }: Manifest,
  { device, kernels }: Pick<RunnerOptions, "device" | "kernels">,
): KernelLibrary | undefined {
  if (precision === "bf16" && device === "cpu") {
    throw new DenseMambaError("device_unavailable", `${name} was compiled to bf16, which runs on CUDA only`);
  }
  if (needed === undefined) return undefined;
  const refuse = (problem: string, code: ErrorCode = "invalid_artifact") =>
    new DenseMambaError(
      code,
      `${name} was compiled for the kernels, version ${needed}, and ${problem}; compile it with --kernels off to do without`,
    );
  if (device !== neededDevice) throw refuse(`they are for ${neededDevice}`, "device_unavailable");
  if (kind !== "native") throw refuse(`the ${kind} runner cannot load them`);
  if (kernels === undefined) throw refuse("they are not loaded");
  if (kernels.device !== device) throw refuse(`${kernels.path} is for ${kernels.device}`);
  if (kernels.version !== needed) throw refuse(`${kernels.path} has version ${kernels.version}`);
  return kernels;
}
