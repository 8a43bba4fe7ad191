/**
 * What must not outlive the benchmark, however it ends: child processes, and gigabytes of states.
 */
import type { ChildProcess } from "node:child_process";
import { rmSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/**
 * Runs `cleanup`, which must be synchronous, when this process exits by itself or on a signal.
 * @returns cancels that
 */
function onExit(cleanup: () => void): () => void {
  const exit = () => process.exit(1); // which runs `cleanup`
  process.once("exit", cleanup);
  for (const signal of SIGNALS) process.once(signal, exit);
  return () => {
    process.removeListener("exit", cleanup);
    for (const signal of SIGNALS) process.removeListener(signal, exit);
  };
}

/** @param kind `group` for a child spawned with `detached`: its own children end with it */
export function killOnExit(child: ChildProcess, kind: "process" | "group" = "process"): void {
  const cancel = onExit(() => {
    if (child.pid === undefined) return;
    try {
      process.kill(kind === "group" ? -child.pid : child.pid, "SIGTERM");
    } catch {
      // It has just ended.
    }
  });
  child.once("exit", cancel);
  child.once("error", cancel);
}

/** Beside the compiled models, since `/tmp` may be in memory. Removed afterwards. */
export async function withScratchDir<T>(cacheDir: string, name: string, use: (dir: string) => Promise<T>): Promise<T> {
  const parent = join(cacheDir, "bench");
  await mkdir(parent, { recursive: true });
  const dir = await mkdtemp(join(parent, `${name}-`));
  const cancel = onExit(() => rmSync(dir, { recursive: true, force: true }));
  try {
    return await use(dir);
  } finally {
    cancel();
    await rm(dir, { recursive: true, force: true });
  }
}
