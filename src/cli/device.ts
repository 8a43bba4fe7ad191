/** Where a model runs, and in which precision. Pure: the providers at hand are given. */
import type { Config } from "../config.ts";
import { DenseMambaError } from "../errors.ts";
import type { Precision } from "../model/artifact.ts";

export interface DeviceChoice {
  readonly device: "cpu" | "cuda";
  /** For the log: why this one. */
  readonly reason: string;
}

const CUDA = "CUDAExecutionProvider";

export interface DeviceFacts {
  /** Whether the CUDA provider's own library is there. Looks at files only: `auto` asks at every start. */
  readonly hasCudaLibrary: () => boolean;
  /** Loads ONNX Runtime. */
  readonly listProviders: () => readonly string[];
}

/**
 * In the order in which to try them: `auto` may fall back, an explicit choice may not.
 * @throws `device_unavailable` naming the providers that are there.
 */
export function chooseDevices(wanted: Config["device"], facts: DeviceFacts): DeviceChoice[] {
  switch (wanted) {
    case "cpu":
      return [{ device: "cpu", reason: "asked for" }];
    case "cuda": {
      const providers = facts.listProviders();
      if (providers.includes(CUDA)) return [{ device: "cuda", reason: "asked for" }];
      throw new DenseMambaError(
        "device_unavailable",
        `--device cuda needs ONNX Runtime's ${CUDA}; this one has ${providers.join(", ")}`,
      );
    }
    case "auto":
      if (!facts.hasCudaLibrary()) return [{ device: "cpu", reason: `this ONNX Runtime has no ${CUDA}` }];
      return [
        { device: "cuda", reason: `this ONNX Runtime has the ${CUDA}` },
        { device: "cpu", reason: "CUDA could not be opened" },
      ];
  }
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
