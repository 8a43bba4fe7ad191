/**
 * The kernel's lock on an open file. It belongs to the descriptor: it ends with the process, however that ends, and a paused
 * process keeps it. Knows no folder and no name.
 */
import koffi from "koffi";
import { loadSharedLibrary } from "./shared-library.ts";

const LOCK_EX = 2;
const LOCK_NB = 4;

/**
 * Does not wait. Closing the descriptor gives the lock back.
 * @returns whether this descriptor holds the lock now; false if another one does
 * @throws an error with the system's code, as `fs` does, where the file cannot be locked; koffi's where there is no `flock`
 */
export function tryLock(descriptor: number): boolean {
  const flock = loadSharedLibrary(null).func("int flock(int descriptor, int operation)");
  if (flock(descriptor, LOCK_EX | LOCK_NB) === 0) return true;
  const number = koffi.errno();
  if (number === koffi.os.errno.EWOULDBLOCK) return false;
  const code = Object.entries(koffi.os.errno).find(([, value]) => value === number)?.[0] ?? `errno ${number}`;
  throw Object.assign(new Error(`flock failed with ${code}`), { code });
}
