/** A folder for what a suite keeps while it runs: gigabytes, which must not stay behind, however the bench ends. */
import { rmSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Beside the compiled models, since `/tmp` may be memory. Removed afterwards, and when a signal ends the bench. */
export async function withScratchDir<T>(cacheDir: string, name: string, use: (dir: string) => Promise<T>): Promise<T> {
  const bench = join(cacheDir, "bench");
  await mkdir(bench, { recursive: true });
  const dir = await mkdtemp(join(bench, `${name}-`));
  const remove = () => rmSync(dir, { recursive: true, force: true });
  const onSignal = () => process.exit(1); // which runs `remove`
  process.once("exit", remove);
  for (const signal of SIGNALS) process.once(signal, onSignal);
  try {
    return await use(dir);
  } finally {
    process.removeListener("exit", remove);
    for (const signal of SIGNALS) process.removeListener(signal, onSignal);
    await rm(dir, { recursive: true, force: true });
  }
}
