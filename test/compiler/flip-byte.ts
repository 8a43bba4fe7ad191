/**
 * Damage in the middle of a file, as another disk would do it: the file is another one afterwards.
 */
import { readFileSync, renameSync, writeFileSync } from "node:fs";

export function flipLastByte(path: string): void {
  const bytes = readFileSync(path);
  bytes[bytes.length - 1]! ^= 0xff;
  const other = `${path}.${process.pid}`;
  writeFileSync(other, bytes);
  renameSync(other, path);
}
