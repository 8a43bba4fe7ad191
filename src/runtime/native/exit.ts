/** Ends the process without waiting for its threads. */
import { loadSharedLibrary } from "./shared-library.ts";

/**
 * At once. NOTE: `process.exit` waits for calls on other threads to return: a step of a large model takes seconds, and a runtime
 * or a disk that hangs never returns.
 */
export function exitAtOnce(code: number): void {
  try {
    loadSharedLibrary(null).func("void _exit(int status)")(code);
  } catch {
    process.exit(code); // Windows has no such function.
  }
}
