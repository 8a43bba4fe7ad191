/** Ties a child process's life to this one's: what ends the bench, a signal or a failure, ends what it started. */
import type { ChildProcess } from "node:child_process";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/**
 * @param kind `session` for a child spawned with `detached`, whose own children end with it
 * @returns undoes it; called by itself when the child ends
 */
export function endWithUs(child: ChildProcess, kind: "process" | "session" = "process"): () => void {
  const stop = () => {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    try {
      process.kill(kind === "session" ? -child.pid : child.pid, "SIGTERM");
    } catch {
      // It has ended in this moment.
    }
  };
  const onSignal = () => process.exit(1); // which runs `stop`
  const release = () => {
    process.removeListener("exit", stop);
    for (const signal of SIGNALS) process.removeListener(signal, onSignal);
  };
  process.once("exit", stop);
  for (const signal of SIGNALS) process.once(signal, onSignal);
  child.once("exit", release);
  return release;
}
