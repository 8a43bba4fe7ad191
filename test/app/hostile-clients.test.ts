/**
 * What clients, and what is behind stderr, must not be able to do to a server: to a process of its
 * own, on real sockets and pipes.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PROGRAM } from "../helpers/program.ts";
import { ServingFolder } from "../helpers/served-process.ts";

const MIB = 2 ** 20;
const TIMEOUT_MS = 120_000;
const NUM_LOOKS = 10;
/** Of a hundredth of a second: an idle server's timers take some. */
const MAX_IDLE_TICKS = 15;
let folder: ServingFolder;

beforeAll(async () => {
  folder = await ServingFolder.make();
}, TIMEOUT_MS);
afterAll(() => folder.remove());

/**
 * `densemamba serve` behind a shell's redirection. Its port is known beforehand: nobody may be able
 * to read it.
 */
class Redirected implements AsyncDisposable {
  readonly url: string;
  readonly port: number;
  readonly child: ChildProcess;
  readonly ended: Promise<number | string>;

  private constructor(redirection: string, port: number, args: readonly string[]) {
    const numerics = ["--device", "cpu", "--precision", "f32", "--kernels", "off", "--threads", "1"];
    const places = ["--port", String(port), "--cache-dir", path.join(folder.dir, "cache")];
    const command = [process.execPath, PROGRAM, "serve", ...places, ...numerics, ...args];
    this.child = spawn("bash", ["-c", `exec "$@" ${redirection}`, "bash", ...command], { stdio: "ignore" });
    this.ended = once(this.child, "exit").then(([code, signal]) => code ?? signal);
    this.port = port;
    this.url = `http://127.0.0.1:${port}`;
  }

  static async start(redirection: string, ...args: string[]): Promise<Redirected> {
    const server = new Redirected(redirection, await freePort(), args);
    let hasEnded = false;
    void server.ended.then(() => (hasEnded = true));
    const status = () =>
      fetch(`${server.url}/ready`).then(
        (response) => response.status,
        () => 0,
      );
    await expect.poll(async () => hasEnded || (await status()) === 200, { timeout: TIMEOUT_MS }).toBe(true);
    if (hasEnded) throw new Error("the server has ended before it was ready");
    return server;
  }

  /**
   * Resolves when it has dealt with all that it will: for two seconds it uses hardly any CPU time.
   */
  async untilIdle(): Promise<void> {
    const usedTicks: number[] = [];
    const recentTicks = () => {
      const fields = readFileSync(`/proc/${this.child.pid}/stat`, "utf8").split(") ")[1]!.split(" ");
      usedTicks.push(Number(fields[11]) + Number(fields[12]));
      return usedTicks.length > NUM_LOOKS
        ? usedTicks.at(-1)! - usedTicks.at(-1 - NUM_LOOKS)!
        : Number.POSITIVE_INFINITY;
    };
    await expect.poll(recentTicks, { interval: 200, timeout: TIMEOUT_MS / 2 }).toBeLessThanOrEqual(MAX_IDLE_TICKS);
  }

  get residentBytes(): number {
    const status = readFileSync(`/proc/${this.child.pid}/status`, "utf8");
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)![1]) * 1024;
  }

  async metric(name: string): Promise<number> {
    const text = await (await fetch(`${this.url}/metrics`)).text();
    return Number(
      text
        .split("\n")
        .find((line) => line.startsWith(`${name}{`))
        ?.split(" ")
        .at(-1),
    );
  }

  async openWebSocket(): Promise<Socket> {
    const socket = connect(this.port, "127.0.0.1");
    socket.on("error", () => {});
    socket.write(
      "GET /v1/responses HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n" +
        "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    expect(String((await once(socket, "data"))[0])).toMatch(/^HTTP\/1\.1 101 /);
    socket.pause();
    return socket;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill("SIGKILL");
    await this.ended;
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  return typeof address === "object" && address !== null ? address.port : 0;
}

/** A masked frame, as clients send them; the mask is zero. */
function frame(firstByte: number, payload: string): Buffer {
  const bytes = Buffer.from(payload);
  return Buffer.concat([Buffer.from([firstByte, 0x80 | bytes.length, 0, 0, 0, 0]), bytes]);
}

/** The largest that comes of it while `work` is done. */
async function growth(server: Redirected, work: () => Promise<void>): Promise<number> {
  const before = server.residentBytes;
  let most = before;
  const timer = setInterval(() => {
    most = Math.max(most, server.residentBytes);
  }, 20);
  await work();
  clearInterval(timer);
  return most - before;
}

const [TEXT, PING] = [0x81, 0x89];

describe.skipIf(process.platform !== "linux")("a WebSocket", () => {
  it.each([
    ["messages of one byte", frame(TEXT, "x")],
    ["messages that are refused", frame(TEXT, '{"type":"response.cancel"}')],
    ["pings", frame(PING, "x".repeat(125))],
  ])(
    "that sends 120,000 %s and reads nothing does not use up memory",
    async (what, message) => {
      await using server = await Redirected.start("2>/dev/null");
      // Code and heap as they are under way.
      const first = await server.openWebSocket();
      first.write(Buffer.concat(Array<Buffer>(5000).fill(frame(TEXT, '{"type":"response.cancel"}'))));
      first.resume();
      await server.untilIdle();
      first.destroy();
      const bytes = await growth(server, async () => {
        const socket = await server.openWebSocket();
        socket.write(Buffer.concat(Array<Buffer>(120_000).fill(message)));
        await server.untilIdle();
        expect((await fetch(`${server.url}/health`)).status).toBe(200);
        socket.destroy();
      });
      console.log(`120,000 ${what}: ${(bytes / MIB).toFixed(1)} MiB`);
      expect(bytes).toBeLessThan(20 * MIB);
    },
    TIMEOUT_MS,
  );

  it(
    "and nineteen others cannot hold more than the bound in unfinished messages, nor block other clients",
    async () => {
      await using server = await Redirected.start("2>/dev/null", "--max-body-bytes", "16MiB");
      const head = Buffer.alloc(14);
      head.set([TEXT, 0xff]);
      head.writeBigUInt64BE(BigInt(16 * MIB), 2);
      const bytes = await growth(server, async () => {
        const sockets = await Promise.all(Array.from({ length: 20 }, () => server.openWebSocket()));
        for (const socket of sockets) socket.write(Buffer.concat([head, Buffer.alloc(15 * MIB, 0x20)]));
        await server.untilIdle();
        const socket = await server.openWebSocket();
        socket.resume();
        socket.write(frame(TEXT, "{}"));
        expect(String((await once(socket, "data"))[0])).toContain('"code":"invalid_value"');
        for (const each of [...sockets, socket]) each.destroy();
      });
      console.log(`20 unfinished messages of 15 MiB: ${(bytes / MIB).toFixed(1)} MiB`);
      expect(bytes).toBeLessThan(200 * MIB);
    },
    TIMEOUT_MS,
  );
});

describe.skipIf(process.platform !== "linux")("a server", () => {
  const lines = 80;
  const longPath = `/nowhere/${"x".repeat(10_000)}`;

  it.each([
    ["stderr is full", "2>/dev/full"],
    ["stdout and stderr are full", ">/dev/full 2>/dev/full"],
    ["the reader of stderr has gone", "2> >(exec true)"],
    ["the readers of stdout and stderr have gone", "> >(exec true) 2> >(exec true)"],
    ["the reader of stderr has stopped reading", "2> >(exec sleep 60)"],
  ])(
    "continues, counts the log lines that it drops, and shuts down cleanly if %s",
    async (_what, redirection) => {
      await using server = await Redirected.start(redirection);
      for (let line = 0; line < lines; line++) {
        expect((await fetch(server.url + longPath)).status).toBe(404);
      }
      expect(await server.metric("densemamba_log_lines_dropped_total")).toBeGreaterThan(0);
      const startedAt = performance.now();
      server.child.kill("SIGTERM");
      expect(await server.ended).toBe(0);
      expect(performance.now() - startedAt).toBeLessThan(5000);
    },
    TIMEOUT_MS,
  );
});
