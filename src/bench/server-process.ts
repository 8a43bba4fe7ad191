/**
 * The server as a user runs it: another process, reached over loopback. The bench process is the client and counts
 * what arrives, so neither steals the other's event loop.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { request } from "node:http";
import { performance } from "node:perf_hooks";
import { fileURLToPath } from "node:url";

export class ServerProcess {
  readonly #child: ChildProcess;
  readonly #port: number;

  private constructor(child: ChildProcess, port: number) {
    this.#child = child;
    this.#port = port;
  }

  /** Starts `densemamba serve` on a free port and waits until it answers `/ready`. */
  static async start(args: readonly string[]): Promise<ServerProcess> {
    const entry = fileURLToPath(new URL("../cli/main.js", import.meta.url));
    const child = spawn(process.execPath, [entry, "serve", "--port", "0", "--log-level", "warn", ...args], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    const port = await new Promise<number>((resolve, reject) => {
      let output = "";
      const read = (chunk: Buffer) => {
        output += chunk.toString();
        const match = /http:\/\/[^\s:]+:(\d+)/.exec(output);
        if (match !== null) resolve(Number(match[1]));
      };
      child.stdout?.on("data", read);
      child.stderr?.on("data", read);
      child.once("exit", (code) => reject(new Error(`densemamba serve exited with ${code}:\n${output}`)));
    });
    return new ServerProcess(child, port);
  }

  /** Streams one completion of `numTokens` and returns the arrival of each chunk that carries text or an id, in ms. */
  streamCompletion(numTokens: number, salt: number): Promise<number[]> {
    const body = JSON.stringify({
      prompt: Array.from({ length: 8 }, (_, i) => 3 + ((i * 31 + salt * 17) % 250)),
      max_tokens: numTokens,
      temperature: 0,
      ignore_eos: true,
      stream: true,
    });
    return new Promise((resolve, reject) => {
      const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(body) };
      const call = request({ port: this.#port, path: "/v1/completions", method: "POST", headers }, (response) => {
        const arrivals: number[] = [];
        let rest = "";
        response.setEncoding("utf8");
        response.on("data", (text: string) => {
          const atMs = performance.now();
          const parts = (rest + text).split("\n\n");
          rest = parts.pop() ?? "";
          for (const part of parts) {
            if (part.startsWith("data: {") && part.includes('"finish_reason":null')) arrivals.push(atMs);
          }
        });
        response.on("end", () =>
          response.statusCode === 200 ? resolve(arrivals) : reject(new Error(`HTTP ${response.statusCode}: ${rest}`)),
        );
        response.on("error", reject);
      });
      call.on("error", reject);
      call.end(body);
    });
  }

  async stop(): Promise<void> {
    const exited = new Promise((resolve) => this.#child.once("exit", resolve));
    this.#child.kill("SIGTERM");
    await exited;
  }
}
