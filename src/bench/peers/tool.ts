/** Runs other people's programs: their output is collected or logged, a failure tells the end of it. */
import { spawn } from "node:child_process";
import { createWriteStream } from "node:fs";
import { writeFile } from "node:fs/promises";
import { constants, setPriority } from "node:os";
import { endWithUs } from "../child.ts";

export interface ToolOptions {
  readonly cwd?: string;
  /** Appends stdout and stderr here as they come. */
  readonly logFile?: string;
  /** Leave the processors to everyone else: for builds that take long. */
  readonly lowPriority?: boolean;
}

const TAIL_CHARACTERS = 2000;

/** What it printed on stdout. @throws Error with the end of its output if it cannot start or ends with a failure */
export async function runTool(command: string, args: readonly string[], options: ToolOptions = {}): Promise<string> {
  // A session of its own where it has to be nice: Linux weighs it as one group.
  const child = spawn(command, args, {
    cwd: options.cwd,
    stdio: ["ignore", "pipe", "pipe"],
    detached: options.lowPriority === true,
  });
  if (options.lowPriority) yieldTo(child.pid);
  const log = options.logFile === undefined ? undefined : createWriteStream(options.logFile, { flags: "a" });
  let stdout = "";
  let tail = "";
  const read = (text: string) => {
    tail = (tail + text).slice(-TAIL_CHARACTERS);
    log?.write(text);
  };
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
    read(text);
  });
  child.stderr.setEncoding("utf8").on("data", read);
  const release = endWithUs(child, options.lowPriority ? "session" : "process");
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", resolve);
    });
    if (code !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${code}:\n${tail}`);
    return stdout;
  } finally {
    release();
    log?.end();
  }
}

function yieldTo(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    setPriority(pid, constants.priority.PRIORITY_LOW);
  } catch {
    // It has ended already.
  }
  // Where the scheduler groups sessions, a low priority counts within the group only; elsewhere there is no such file.
  writeFile(`/proc/${pid}/autogroup`, "19").catch(() => {});
}
