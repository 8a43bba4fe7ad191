/**
 * Limits how much the system buffers for a connection whose peer reads nothing. By default that is megabytes, or ten thousand
 * tokens of a stream that nobody reads. Node has no option for it.
 */
import { loadSharedLibrary } from "./shared-library.ts";

/** SOL_SOCKET and SO_SNDBUF. */
const OPTIONS: Partial<Record<NodeJS.Platform, readonly [level: number, name: number]>> = {
  linux: [1, 7],
  darwin: [0xffff, 0x1001],
};

/**
 * @param descriptor of a listening socket: connections that it accepts inherit the limit
 * @returns whether it could be done here
 * @throws koffi's error where there is no `setsockopt`
 */
export function limitSendBuffer(descriptor: number, bytes: number): boolean {
  const option = OPTIONS[process.platform];
  if (option === undefined) return false;
  const signature = "int setsockopt(int descriptor, int level, int name, const int *value, uint32_t size)";
  const setOption = loadSharedLibrary(null).func(signature);
  return setOption(descriptor, ...option, [bytes], 4) === 0;
}
