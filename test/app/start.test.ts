/** How a server starts in various environments: real processes. */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { WebSocket } from "ws";
import { PROGRAM } from "../helpers/program.ts";
import { type ServedProcess, ServingFolder } from "../helpers/served-process.ts";

let folder: ServingFolder;
const running: ServedProcess[] = [];

beforeAll(async () => {
  folder = await ServingFolder.make();
});
afterAll(async () => {
  for (const server of running) server.kill("SIGKILL");
  await folder.remove();
});

async function serve(...[args, execPath, options]: Parameters<ServingFolder["serve"]>): Promise<ServedProcess> {
  const server = await folder.serve(args, execPath, options);
  running.push(server);
  return server;
}

it("next to services with its name, whose links are ignored with one line in the log", async () => {
  const links = {
    DENSEMAMBA_SERVICE_HOST: "10.96.1.2",
    DENSEMAMBA_SERVICE_PORT: "8080",
    DENSEMAMBA_PORT: "tcp://10.96.1.2:8080",
    DENSEMAMBA_PORT_8080_TCP: "tcp://10.96.1.2:8080",
    DENSEMAMBA_PORT_8080_TCP_PROTO: "tcp",
    DENSEMAMBA_PORT_8080_TCP_PORT: "8080",
    DENSEMAMBA_PORT_8080_TCP_ADDR: "10.96.1.2",
    DENSEMAMBA_API_SERVICE_HOST: "10.96.1.3",
  };
  const server = await serve([], undefined, { env: { ...process.env, ...links } });
  const lines = server.stderr.split("\n").filter((line) => line.includes("ignored"));
  expect(lines).toHaveLength(1);
  expect(JSON.parse(lines[0]!).variables).toEqual(Object.keys(links));
  expect(await server.stop()).toBe(0);
});

it("under the names it is given, with the first as its own, and under any other if it is told so", async () => {
  const names = ["--model-name", "tales", "--model-name", "gpt-4o", "--any-model-name", "--root-path", "/llm"];
  const server = await serve(names);
  const models = (await (await fetch(`${server.url}/llm/v1/models`)).json()) as {
    data: { id: string; root: string }[];
  };
  expect(models.data.map(({ id, root }) => [id, root])).toEqual([
    ["tales", "tales"],
    ["gpt-4o", "tales"],
    ["densemamba-tales-4m", "tales"],
  ]);
  for (const model of ["tales", "gpt-4o", "densemamba-tales-4m", "whatever"]) {
    const response = await server.post("/v1/completions", { model, prompt: "Once", max_tokens: 1 });
    expect(await response.json()).toMatchObject({ model: "tales" });
  }
  expect(await (await fetch(`${server.url}/version`)).json()).toMatchObject({ version: expect.stringMatching(/^\d/) });
  expect(await server.stop()).toBe(0);
});

/** As OpenShift's: without a name, a home folder, or rights of its own. */
const NAMELESS = { uid: 1_000_650_000, gid: 0 };
// The checkout may be where only its owner may read, as in a folder of `mktemp -d`.
const canBeNameless =
  process.getuid?.() === 0 && spawnSync("test", ["-r", PROGRAM], { ...NAMELESS, timeout: 10_000 }).status === 0;

it.runIf(canBeNameless)("without a home folder, if everything that would be in it is elsewhere", async () => {
  const dir = await mkdtemp(path.join(tmpdir(), "densemamba-homeless-"));
  await chmod(dir, 0o777);
  await chmod(folder.dir, 0o755);
  const env = { PATH: process.env.PATH, HF_HOME: dir, DENSEMAMBA_CACHE_DIR: dir };
  const server = await serve([], undefined, { env, ...NAMELESS });
  expect(await server.stop()).toBe(0);
  await rm(dir, { recursive: true, force: true });
});

/** Lines of JSON. */
const logOf = ({ stderr }: Pick<ServedProcess, "stderr">) =>
  stderr
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { level: number; msg: string; errorCode?: string });

it.each([
  ["a mistake in the configuration", ["--max-batch", "0", "--log-level", "loud"], 2, "invalid_config"],
  ["a model that is not there", ["--model", "/nowhere/at-all"], 2, "invalid_config"],
  ["an address that is none here", ["--host", "192.0.2.1"], 1, "EADDRNOTAVAIL"],
])("ends with one line of its log after %s", async (_, args, exitCode, errorCode) => {
  const child = spawn(process.execPath, [PROGRAM, "serve", "--port", "0", ...args], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text) => (stderr += text));
  expect((await once(child, "close"))[0]).toBe(exitCode);
  expect(logOf({ stderr })).toEqual([
    { level: 60, time: expect.any(Number), errorCode, msg: expect.stringContaining(errorCode) },
  ]);
});

it("logs JSON alone, also while it compiles a model", async () => {
  const server = await serve(["--cache-dir", path.join(folder.dir, "other-cache")]);
  expect(logOf(server).map(({ msg }) => msg)).toContainEqual(expect.stringMatching(/^compiling .*: 100%$/));
  expect(await server.stop()).toBe(0);
});

it("serves on for --drain-ms after SIGTERM, not ready, and closes each connection", async () => {
  const server = await serve(["--drain-ms", "2s"]);
  const ready = async () => (await fetch(`${server.url}/ready`)).status;
  expect(await ready()).toBe(200);
  server.kill("SIGTERM");
  await expect.poll(ready, { interval: 10 }).toBe(503);
  expect(await (await fetch(`${server.url}/ready`)).json()).toMatchObject({ status: "draining" });
  const answer = await server.post("/v1/completions", { prompt: "Once", max_tokens: 2 });
  expect([answer.status, answer.headers.get("connection")]).toEqual([200, "close"]);
  expect(await server.ended).toBe(0);
  expect(logOf(server).map(({ msg }) => msg)).toEqual(expect.arrayContaining(["draining", "shutting down", "closed"]));
});

it("takes API keys from a file, reads them again at SIGHUP, and keeps those it has if there are none", async () => {
  const file = path.join(folder.dir, "keys");
  await writeFile(file, "first\nsecond\n");
  const server = await serve([], undefined, { env: { ...process.env, DENSEMAMBA_API_KEYS_FILE: file } });
  const statusWith = async (key: string) =>
    (await fetch(`${server.url}/v1/models`, { headers: { authorization: `Bearer ${key}` } })).status;
  const openWith = async (key: string) => {
    const socket = new WebSocket(server.webSocketUrl, { headers: { authorization: `Bearer ${key}` } });
    const isOpen = await Promise.race([once(socket, "open"), once(socket, "unexpected-response")]).then(
      ([request]) => request === undefined,
    );
    socket.terminate();
    return isOpen;
  };
  expect([await statusWith("first"), await statusWith("third")]).toEqual([200, 401]);
  await writeFile(file, "second\nthird\n");
  server.kill("SIGHUP");
  await expect.poll(() => statusWith("first")).toBe(401);
  expect([await statusWith("second"), await statusWith("third")]).toEqual([200, 200]);
  expect([await openWith("first"), await openWith("third")]).toEqual([false, true]);
  for (const content of ["", "no key\n"]) {
    await writeFile(file, content);
    const numLines = logOf(server).length;
    server.kill("SIGHUP");
    await expect
      .poll(() =>
        logOf(server)
          .slice(numLines)
          .map(({ msg }) => msg),
      )
      .toContainEqual("the API keys cannot be reloaded, and stay as they are");
    expect([await statusWith(""), await statusWith("third")]).toEqual([401, 200]);
  }
  expect(server.stderr).not.toMatch(/second|third|no key/);
  expect(await server.stop()).toBe(0);
});

it("prints its configuration without secrets, and ends", async () => {
  const env = { ...process.env, DENSEMAMBA_VALKEY_URL: "valkey://:secret@h" };
  const args = [PROGRAM, "serve", "--print-config", "--max-batch", "8"];
  const { stdout, status } = spawnSync(process.execPath, args, { env, encoding: "utf8", timeout: 60_000 });
  expect(status).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({
    maxBatch: { value: 8, from: "--max-batch" },
    valkeyUrl: { value: "hidden", from: "DENSEMAMBA_VALKEY_URL" },
  });
  expect(stdout).not.toContain("secret");
});

it("refuses a port that is in use before it loads the model", async () => {
  const other = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => other.once("listening", resolve));
  const { port } = other.address() as { port: number };
  await expect(serve(["--port", String(port), "--model", "/nowhere/at-all"])).rejects.toThrow(
    new RegExp(`EADDRINUSE: port ${port} on 127.0.0.1 is in use; choose another with --port`),
  );
  other.close();
});

it("shuts down cleanly when the npx that started it is stopped", async () => {
  const bin = path.join(folder.dir, "npx/node_modules/.bin");
  await mkdir(bin, { recursive: true });
  const command = `"${process.execPath}" "${path.resolve(PROGRAM)}" "$@"`;
  await writeFile(path.join(bin, "densemamba"), `#!/bin/sh\nexec ${command}\n`, { mode: 0o755 });
  const cache = ["--cache-dir", path.join(folder.dir, "cache"), "--precision", "f32", "--kernels", "off"];
  const args = ["--no-install", "densemamba", "serve", "--port", "0", ...cache];
  const npx = spawn("npx", args, { cwd: path.join(folder.dir, "npx"), stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [npx.stdout, npx.stderr]) stream.setEncoding("utf8").on("data", (text) => (output += text));
  await expect.poll(() => output, { timeout: 60_000 }).toContain("curl -N");
  npx.kill("SIGTERM");
  // Its output ends with the last process that has it.
  await once(npx, "close");
  expect(output).toMatch(/"signal":"npm has ended".*"shutting down"[\s\S]*"closed"/);
}, 90_000);
