/**
 * A finished folder into a cache that other processes read and write: at no time is an entry
 * missing that was there.
 */
import { readdir, rename } from "node:fs/promises";
import { join } from "node:path";

/**
 * Moves `built` to `dir`; where that is there, file by file into it. Entries are named by what they
 * are made from, so that whatever another process has put there is equal or broken.
 * @param last the file that readers look for first
 */
export async function publishFolder(built: string, dir: string, last: string): Promise<void> {
  try {
    await rename(built, dir);
  } catch (error) {
    const isThere = error instanceof Error && "code" in error && ["ENOTEMPTY", "EEXIST"].includes(String(error.code));
    if (!isThere) throw error;
    const names = (await readdir(built)).filter((name) => name !== last);
    for (const name of [...names, last]) await rename(join(built, name), join(dir, name));
  }
}
