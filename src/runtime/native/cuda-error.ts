/** What CUDA says of a call that failed, as an error. Loads nothing. */
import { DenseMambaError, type ErrorCode } from "../../errors.ts";

/**
 * After these nothing more can be done on the device in this process, whatever is closed and opened
 * again: its memory may be corrupt, and every call gives the same error. As NVIDIA's documentation
 * of `cudaError` has them.
 */
const LASTING = new Set([214, 220, 226, 700, 702, 710, 714, 715, 716, 717, 718, 719, 721]);

/** @param error CUDA's number */
export function isLasting(error: number): boolean {
  return LASTING.has(error);
}

/** The device is lost to this process: opening another runner will not do. */
export class LostDeviceError extends DenseMambaError {}

/** @param error CUDA's number */
export function cudaFailure(message: string, error: number): DenseMambaError {
  return failure("runtime_fault", message, error);
}

/** As ONNX Runtime's CUDA provider words what one of CUDA's libraries refused. */
const PROVIDER_FAILURE = /\b(CUDA|CUBLAS|CURAND|CUDNN|CUFFT) failure (\d+): /;
const OUT_OF_MEMORY = /out of memory|Failed to allocate memory|ALLOC_FAILED/i;
/** Of ONNX Runtime's source: file, line and signature, before what happened there. */
const TRACE = /\/onnxruntime_src\/\S+:\d+ .*?(?=[A-Z]+ failure \d+: |Failed to allocate)/gs;
const PLACE = / ; GPU=-?\d+ ; hostname=[^;]* ; file=[^;]* ; line=\d+ ; expr=([^;]*);?/g;

/**
 * ONNX Runtime's message of a failure of CUDA's without kilobytes about its source, and without
 * this machine's name.
 */
export function withoutTrace(message: string): string {
  return message.replace(TRACE, "").replace(PLACE, " ($1)").trim();
}

/**
 * ONNX Runtime takes whatever goes wrong while it opens a session for the model's fault.
 * @returns the error as it should be
 */
export function orDeviceFailure(error: unknown): unknown {
  if (!(error instanceof DenseMambaError)) return error;
  const [found, library, number] = PROVIDER_FAILURE.exec(error.message) ?? [];
  if (found === undefined && !OUT_OF_MEMORY.test(error.message)) return error;
  return failure("device_unavailable", error.message, library === "CUDA" ? Number(number) : 0, error);
}

/**
 * What an error is that came up while a runner was opened on a device for `what`: the device cannot
 * be had, which is no fault of the model, and `auto` may go on to the CPU. Others are returned as
 * they are.
 */
export function whileOpening(error: unknown, what: string): unknown {
  if (!(error instanceof DenseMambaError) || !["runtime_fault", "device_unavailable"].includes(error.code))
    return error;
  const isFull = OUT_OF_MEMORY.test(error.message);
  const isCuda = error.code === "runtime_fault" || PROVIDER_FAILURE.test(error.message);
  if (!isFull && !isCuda) return error;
  const problem = isFull ? `does not have the memory for ${what}` : `cannot run ${what}`;
  const Kind = error instanceof LostDeviceError ? LostDeviceError : DenseMambaError;
  return new Kind("device_unavailable", `the CUDA device ${problem}: ${error.message}`, { cause: error });
}

function failure(code: ErrorCode, message: string, error: number, cause?: unknown): DenseMambaError {
  if (!LASTING.has(error)) return new DenseMambaError(code, message, { cause });
  const advice = "CUDA works again only in a new process: restart this one";
  return new LostDeviceError(code, `${message}; ${advice}`, { cause });
}
