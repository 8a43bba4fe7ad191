/** Loads C libraries for this process. koffi must be configured before its first library. */
import koffi, { type LibraryHandle } from "koffi";

/**
 * ONNX Runtime computes on the stack of the thread that calls `Run`, and koffi gives its calls a
 * stack of their own: 128 KiB by default, less than the kernels may take.
 */
const ASYNC_STACK_BYTES = 8 * 1024 * 1024;

/**
 * NOTE: koffi unloads a library when its handle is collected, even while functions decoded from its
 * pointers remain. Hold the handle for as long as anything may call into it.
 *
 * @param path null: what the process is linked with
 * @throws koffi's error if it does not load.
 */
export function loadSharedLibrary(path: string | null): LibraryHandle {
  const { async_stack_size = 0 } = koffi.config();
  if (async_stack_size < ASYNC_STACK_BYTES) koffi.config({ async_stack_size: ASYNC_STACK_BYTES });
  return koffi.load(path);
}
