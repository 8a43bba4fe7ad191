/** What CUDA says of a call that failed, as an error. Loads nothing. */
import type { LibraryHandle } from "koffi";
import { DenseMambaError } from "../../errors.ts";

/** @throws `runtime_fault`: `CUDA cannot <what>: <CUDA's message>`, for an error other than 0. */
export type CudaCheck = (what: string, error: number) => void;

/**
 * After these nothing more can be done on the device in this process, whatever is closed and opened again: its memory may be
 * corrupt, and every call gives the same error. As NVIDIA's documentation of `cudaError` has them.
 */
const LASTING = new Set([214, 220, 226, 700, 702, 710, 714, 715, 716, 717, 718, 719, 721]);

/** The device is lost to this process: opening another runner will not do. */
export class LostDeviceError extends DenseMambaError {}

/** `library`: our own, which has the function that explains. */
export function cudaCheck(library: LibraryHandle): CudaCheck {
  const explain = library.func("densemamba_cuda_error", "str", ["int"]);
  return (what, error) => {
    if (error === 0) return;
    const message = `CUDA cannot ${what}: ${explain(error)} (error ${error})`;
    if (!LASTING.has(error)) throw new DenseMambaError("runtime_fault", message);
    throw new LostDeviceError("runtime_fault", `${message}; CUDA works again only in a new process: restart this one`);
  };
}
