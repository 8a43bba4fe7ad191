/** Where a model runs, and in which precision. Pure: what there is of CUDA is given. */
import type { Config } from "../config.ts";
import { DenseMambaError } from "../errors.ts";
import type { Precision } from "../model/artifact.ts";
import type { CudaDevice, CudaReport } from "../runtime/open.ts";

export interface DeviceChoice {
  readonly device: "cpu" | "cuda";
  /** For the log: why this one. */
  readonly reason: string;
  /** The CUDA device, where it is known. */
  readonly cuda?: CudaDevice | undefined;
}

export interface DeviceFacts {
  /** Whether ONNX Runtime's CUDA provider is there. Looks at files only: `auto` asks at every start. */
  readonly hasCudaProvider: () => boolean;
  /** undefined: only opening the device can tell. */
  readonly inspectCuda: () => Promise<CudaReport | undefined>;
}

/**
 * In the order in which to try them: `auto` may fall back, an explicit choice may not.
 * @throws `device_unavailable` with what is missing, found and needed.
 */
export async function chooseDevices(
  wanted: Config["device"],
  { hasCudaProvider, inspectCuda }: DeviceFacts,
): Promise<DeviceChoice[]> {
  if (wanted === "cpu") return [{ device: "cpu", reason: "asked for" }];
  if (wanted === "auto" && !hasCudaProvider()) {
    return [{ device: "cpu", reason: "this ONNX Runtime has no CUDA provider" }];
  }
  const report = await inspectCuda();
  if (report?.isUsable === false) {
    const { problem, details } = report;
    if (wanted === "cuda") {
      throw new DenseMambaError(
        "device_unavailable",
        `device cuda is not available: ${problem}. ${capitalised(details)}`,
      );
    }
    return [{ device: "cpu", reason: `no CUDA: ${problem}. ${capitalised(details)}` }];
  }
  const cuda = report?.device;
  const name = cuda === undefined ? "" : ` (${cuda.name}, sm_${cuda.capability})`;
  if (wanted === "cuda") return [{ device: "cuda", reason: `asked for${name}`, cuda }];
  return [
    { device: "cuda", reason: `there is one${name}`, cuda },
    { device: "cpu", reason: "CUDA could not be opened" },
  ];
}

function capitalised(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/**
 * In the order in which to try them. On a CPU decoding is bound by reading the weights, and 8 bits halve the time a token
 * takes. On CUDA f16 halves both weights and states; a
 * model with weights beyond it stays in f32.
 */
export function choosePrecisions(wanted: Config["precision"], device: DeviceChoice["device"]): Precision[] {
  if (wanted !== "auto") return [wanted];
  return device === "cpu" ? ["int8", "f32"] : ["f16", "f32"];
}
