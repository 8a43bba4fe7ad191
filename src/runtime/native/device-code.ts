/**
 * Which CUDA devices a shared library has code for, read from its file: nvcc leaves a container for
 * each source, with that source's code for one architecture after another.
 */
import { readSections } from "./elf.ts";

/** `isPtx`: text that a driver translates for later devices too. `capability`: 90 for sm_90. */
export interface DeviceCode {
  readonly isPtx: boolean;
  readonly capability: number;
}

const SECTION = ".nv_fatbin";
const MAGIC = 0xba55_ed50;
const HEADER_BYTES = 16;
const ENTRY_BYTES = 32;
const MACHINE_CODE = 2;
const ALIGNMENT = 8;

/**
 * Of one source, then of the next, if `isEnough` says false of all that came before.
 * @throws an error if the file cannot be read
 */
export function deviceCodeOf(
  path: string,
  isEnough: (code: readonly DeviceCode[]) => boolean = () => false,
): Promise<DeviceCode[]> {
  return readSections(path, async (find) => {
    const { numBytes, read } = find(SECTION);
    const found = new Map<string, DeviceCode>();
    for (let at = 0; at + HEADER_BYTES <= numBytes; ) {
      const header = await read(at, HEADER_BYTES);
      if (header.readUInt32LE(0) !== MAGIC) break;
      const end = at + header.readUInt16LE(6) + Number(header.readBigUInt64LE(8));
      for (let place = at + header.readUInt16LE(6); place + ENTRY_BYTES <= end; ) {
        const entry = await read(place, ENTRY_BYTES);
        const code = { isPtx: entry.readUInt16LE(0) !== MACHINE_CODE, capability: entry.readUInt32LE(28) };
        found.set(nameOf(code), code);
        place += entry.readUInt32LE(4) + Number(entry.readBigUInt64LE(8));
      }
      if (isEnough([...found.values()])) break;
      at = Math.ceil(end / ALIGNMENT) * ALIGNMENT;
    }
    return [...found.values()];
  });
}

/**
 * Machine code runs on devices of its own generation that are not older, PTX on all that are not.
 */
export function runsOn({ isPtx, capability: needed }: DeviceCode, capability: number): boolean {
  return capability >= needed && (isPtx || Math.floor(capability / 10) === Math.floor(needed / 10));
}

/** `sm_90`, or of PTX `compute_75`. */
export function nameOf({ isPtx, capability }: DeviceCode): string {
  return `${isPtx ? "compute" : "sm"}_${capability}`;
}
