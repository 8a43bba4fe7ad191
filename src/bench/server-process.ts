/**
 * A server as its user runs it: another process, reached over loopback. The benchmark is the client
 * and counts what arrives, so neither takes time from the other's event loop.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { packageRoot } from "../config/schema.ts";
import { killOnExit } from "./cleanup.ts";

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

  /**
   * On a free port; resolves when it is ready. @throws Error with the end of its output if it exits
   * before that
   */
  static async start({ command, args, readyPath }: ServerCommand): Promise<ServerProcess> {
    const port = await freePort();
    const child = spawn(command, args(port), { stdio: ["ignore", "pipe", "pipe"] });
    killOnExit(child);
    let tail = "";
    let failure: string | undefined;
    // Read to the end: a full pipe would stop the server.
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

  /** `densemamba serve`, as it was built last. */
  static startOwn(args: readonly string[]): Promise<ServerProcess> {
    const program = join(packageRoot, "dist", "cli", "main.js");
    return ServerProcess.start({
      command: process.execPath,
      args: (port) => [program, "serve", "--port", String(port), "--log-level", "warn", ...args],
      readyPath: "/ready",
    });
  }

  async stop(): Promise<void> {
    const child = this.#child;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGTERM");
    await exited;
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
