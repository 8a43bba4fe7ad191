/** A real Valkey or Redis server of the test's own, if one is installed. */
import { strict as assert } from "node:assert";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import { Redis } from "ioredis";
import { vi } from "vitest";

const BINARY = ["valkey-server", "redis-server"].find((name) => spawnSync(name, ["--version"]).status === 0);

/** For the name of a group of tests that is skipped. */
export const WITHOUT_VALKEY =
  BINARY === undefined ? " (skipped: neither valkey-server nor redis-server is installed)" : "";

export class ValkeyServer {
  readonly port: number;
  #process: ChildProcess;

  private constructor(port: number, process: ChildProcess) {
    this.port = port;
    this.#process = process;
  }

  static async start(...args: string[]): Promise<ValkeyServer> {
    const port = await freePort();
    return new ValkeyServer(port, await launch(port, args));
  }

  get url(): string {
    return `valkey://127.0.0.1:${this.port}`;
  }

  /** The process stands still: connections stay open, and nothing is answered. */
  pause(): void {
    this.#process.kill("SIGSTOP");
  }

  resume(): void {
    this.#process.kill("SIGCONT");
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    this.#process.kill("SIGKILL");
    await once(this.#process, "exit");
  }

  /** Waits until so much time has passed on the server's clock, which cannot be injected. */
  async passTime(ms: number): Promise<void> {
    const redis = new Redis(this.port);
    const nowMs = async () => {
      const [seconds, micros] = await redis.time();
      return Number(seconds) * 1000 + Number(micros) / 1000;
    };
    const untilMs = (await nowMs()) + ms;
    await vi.waitFor(async () => assert((await nowMs()) > untilMs), { timeout: ms + 10_000, interval: 10 });
    redis.disconnect();
  }

  /** On the same port, with no data. */
  async restart(): Promise<void> {
    await this.stop();
    this.#process = await launch(this.port, []);
  }
}

async function launch(port: number, args: readonly string[]): Promise<ChildProcess> {
  const all = [
    "--port",
    `${port}`,
    "--bind",
    "127.0.0.1",
    "--save",
    "",
    "--appendonly",
    "no",
    "--dir",
    "/tmp",
    ...args,
  ];
  const server = spawn(BINARY!, all, { stdio: ["ignore", "pipe", "inherit"] });
  for await (const line of createInterface(server.stdout!)) {
    if (/ready to accept connections/i.test(line)) break;
  }
  server.stdout!.resume();
  return server;
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}
