/** Calls into the C library for what Node has no API for. */
import koffi from "koffi";
import { loadSharedLibrary } from "./shared-library.ts";

const LOCK_EX = 2;
const LOCK_NB = 4;

/** SOL_SOCKET and SO_SNDBUF. */
const SEND_BUFFER_OPTION: Partial<Record<NodeJS.Platform, readonly [level: number, name: number]>> = {
  linux: [1, 7],
  darwin: [0xffff, 0x1001],
};

/**
 * Locks an open file without waiting. The lock belongs to the descriptor: it is released when the
 * descriptor is closed or the process ends in any way, but not while the process is paused.
 * @returns whether this descriptor has the lock now; false if another one has it
 * @throws an error with the system's code, as `fs` does; koffi's if there is no `flock`
 */
export function tryLock(descriptor: number): boolean {
  const flock = loadSharedLibrary(null).func("int flock(int descriptor, int operation)");
  if (flock(descriptor, LOCK_EX | LOCK_NB) === 0) return true;
  const number = koffi.errno();
  if (number === koffi.os.errno.EWOULDBLOCK) return false;
  const code = Object.entries(koffi.os.errno).find(([, value]) => value === number)?.[0] ?? `errno ${number}`;
  throw Object.assign(new Error(`flock failed with ${code}`), { code });
}

/**
 * Limits how much the system buffers for a connection whose peer reads nothing. The default is
 * megabytes: ten thousand tokens of a stream that nobody reads.
 * @param descriptor of a listening socket: accepted connections inherit the limit
 * @returns whether this platform supports it
 * @throws koffi's error if there is no `setsockopt`
 */
export function limitSendBuffer(descriptor: number, bytes: number): boolean {
  const option = SEND_BUFFER_OPTION[process.platform];
  if (option === undefined) return false;
  const signature = "int setsockopt(int descriptor, int level, int name, const int *value, uint32_t size)";
  const setOption = loadSharedLibrary(null).func(signature);
  return setOption(descriptor, ...option, [bytes], 4) === 0;
}

const MADV_HUGEPAGE = 14;
/** The smallest there is: the call wants its beginning to be that of a page. */
const PAGE_BYTES = 4096n;

/**
 * Asks the system for pages of 2 MiB under memory that is gone through from end to end: with those
 * of 4 KiB the processor looks up an address for every 64 lines of its cache. They are taken when
 * the memory is first touched, as far as the system has any.
 * @param memory over an ArrayBuffer that was not touched before
 * @returns whether this platform supports it
 */
export function preferHugePages(memory: ArrayBufferView): boolean {
  if (process.platform !== "linux") return false;
  const start = koffi.address(memory);
  const first = ((start + PAGE_BYTES - 1n) / PAGE_BYTES) * PAGE_BYTES;
  const end = ((start + BigInt(memory.byteLength)) / PAGE_BYTES) * PAGE_BYTES;
  const advise = loadSharedLibrary(null).func("int madvise(uintptr_t address, size_t length, int advice)");
  return end > first && advise(first, end - first, MADV_HUGEPAGE) === 0;
}

/**
 * Ends the process at once. NOTE: `process.exit` waits for calls on other threads to return: a step
 * of a large model takes seconds, and a runtime or a disk that hangs never returns.
 */
export function exitAtOnce(code: number): void {
  try {
    loadSharedLibrary(null).func("void _exit(int status)")(code);
  } catch {
    process.exit(code); // Windows has no `_exit`.
  }
}
