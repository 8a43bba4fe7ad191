/** The CUDA runtime that ONNX Runtime's provider is linked with. */
import { readFileSync } from "node:fs";
import { loadSharedLibrary } from "./shared-library.ts";

/**
 * Makes the provider's CUDA runtime, which is not our library's, forget the last error of this
 * thread. ONNX Runtime does not ask for one of memory that it cannot free when a session ends, and
 * the next session's first launch would be told of it.
 */
export function forgetLastError(): void {
  if (process.platform !== "linux") return;
  const mapped = readFileSync("/proc/self/maps", "utf8");
  const runtime = /(\/\S*libcudart\.so\.\d\S*)$/m.exec(mapped)?.[1];
  if (runtime !== undefined) loadSharedLibrary(runtime).func("cudaGetLastError", "int", [])();
}
