/**
 * A server as its user runs it: another process, reached over loopback. The bench process is the client and counts
 * what arrives, so neither steals the other's event loop.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { endWithUs } from "./child.ts";

export interface ServerCommand {
  readonly command: string;
  readonly args: (port: number) => readonly string[];
  /** Answers 200 when the model does. */
  readonly readyPath: string;
}

const POLL_MS = 50;
const TAIL_CHARACTERS = 2000;

export class ServerProcess {
  readonly baseUrl: string;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, baseUrl: string) {
    this.#child = child;
    this.baseUrl = baseUrl;
  }

  /** On a free port; resolves when it is ready. @throws Error with the end of its output if it ends before that */
  static async start({ command, args, readyPath }: ServerCommand): Promise<ServerProcess> {
    const port = await freePort();
    const child = spawn(command, args(port), { stdio: ["ignore", "pipe", "pipe"] });
    endWithUs(child);
    let tail = "";
    let failure: string | undefined;
    // Read to the end: a pipe that fills up would stop the server.
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => {
        tail = (tail + text).slice(-TAIL_CHARACTERS);
      });
    }
    child.once("error", (error) => {
      failure = error.message;
    });
    child.once("exit", (code) => {
      failure ??= `exited with ${code}`;
    });
    const baseUrl = `http://127.0.0.1:${port}`;
    while (!(await answers(baseUrl + readyPath))) {
      if (failure !== undefined) throw new Error(`${command} ${failure}:\n${tail}`);
      await sleep(POLL_MS);
    }
    return new ServerProcess(child, baseUrl);
  }

  /** `densemamba serve` of this very build. */
  static startOwn(args: readonly string[]): Promise<ServerProcess> {
    const entry = fileURLToPath(new URL("../cli/main.js", import.meta.url));
    return ServerProcess.start({
      command: process.execPath,
      args: (port) => [entry, "serve", "--port", String(port), "--log-level", "warn", ...args],
      readyPath: "/ready",
    });
  }

  /** @returns its exit code; null if the signal ended it */
  async stop(signal: "SIGTERM" | "SIGKILL" = "SIGTERM"): Promise<number | null> {
    const child = this.#child;
    if (child.exitCode === null && child.signalCode === null) {
      const exited = new Promise((resolve) => child.once("exit", resolve));
      child.kill(signal);
      await exited;
    }
    return child.exitCode;
  }
}

async function answers(url: string): Promise<boolean> {
  try {
    return (await fetch(url)).ok;
  } catch {
    return false;
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0));
    });
  });
}
