/** Where a model runs, and in which precision. Pure: what there is of CUDA is an argument. */
import type { Config } from "../config/schema.ts";
import { DenseMambaError } from "../errors.ts";
import type { Precision } from "../model/artifact.ts";
import type { CudaDevice, CudaReport } from "../runtime/open.ts";

export interface DeviceChoice {
  readonly device: "cpu" | "cuda";
  /** Why, for the log. */
  readonly reason: string;
  /** The CUDA device, if it is known. */
  readonly cuda?: CudaDevice | undefined;
}

export interface DeviceFacts {
  /** Whether ONNX Runtime's CUDA provider is installed. Quick: `auto` asks at every start. */
  readonly hasCudaProvider: () => boolean;
  /** @returns undefined if only opening the device can tell */
  readonly inspectCuda: () => Promise<CudaReport | undefined>;
}

/**
 * The devices to try, in order: `auto` may fall back, an explicit choice may not.
 * @throws `device_unavailable` with what is missing, what was found and what is needed;
 * `invalid_config` for CUDA in the portable runner
 */
export async function chooseDevices(
  { device: wanted, runtime }: Pick<Config, "device" | "runtime">,
  { hasCudaProvider, inspectCuda }: DeviceFacts,
): Promise<DeviceChoice[]> {
  if (wanted === "cpu") return [{ device: "cpu", reason: "requested" }];
  if (runtime === "portable") {
    if (wanted === "auto") return [{ device: "cpu", reason: "the portable runner has no other" }];
    throw new DenseMambaError(
      "invalid_config",
      "--device cuda needs --runtime native: the portable runner runs on the CPU",
    );
  }
  if (wanted === "auto" && !hasCudaProvider()) {
    return [{ device: "cpu", reason: "this ONNX Runtime has no CUDA provider" }];
  }
  const report = await inspectCuda();
  if (report?.isUsable === false) {
    const { problem, details } = report;
    const explained = `${problem}. ${details.charAt(0).toUpperCase()}${details.slice(1)}`;
    if (wanted === "auto") return [{ device: "cpu", reason: `no CUDA: ${explained}` }];
    throw new DenseMambaError("device_unavailable", `device cuda is not available: ${explained}`);
  }
  const cuda = report?.device;
  const name = cuda === undefined ? "" : ` (${cuda.name}, sm_${cuda.capability})`;
  if (wanted === "cuda") return [{ device: "cuda", reason: `requested${name}`, cuda }];
  return [
    { device: "cuda", reason: `available${name}`, cuda },
    { device: "cpu", reason: "CUDA could not be opened" },
  ];
}

/** The first with matrix units for bf16: A100. */
const BF16_CAPABILITY = 80;

/**
 * The precisions to try, in order. On a CPU reading the weights bounds decoding, and 8 bits halve
 * the time per token. On CUDA 16 bits halve it: bf16, which holds all that f32 holds, unless the
 * device is known to be too old for it; then f16. A model whose weights are too large for f16, or
 * whose sizes do not fit 8 bits, stays in f32.
 * @throws `invalid_config` for bf16 on a CPU, or on a device that is too old for it
 */
export function choosePrecisions(
  wanted: Config["precision"],
  { device, cuda }: Pick<DeviceChoice, "device" | "cuda">,
): Precision[] {
  if (wanted === "bf16" && device === "cpu") {
    throw new DenseMambaError(
      "invalid_config",
      "--precision bf16 needs a CUDA device; on a CPU there are f32, f16, int8 and int4",
    );
  }
  const lacksBf16 = cuda !== undefined && cuda.capability < BF16_CAPABILITY;
  if (wanted === "bf16" && lacksBf16) {
    throw new DenseMambaError(
      "invalid_config",
      `bf16 needs a device of sm_${BF16_CAPABILITY} or later, ${cuda.name} is sm_${cuda.capability}; f16 runs on it`,
    );
  }
  if (wanted !== "auto") return [wanted];
  if (device === "cpu") return ["int8", "f32"];
  return lacksBf16 ? ["f16", "f32"] : ["bf16"];
}
