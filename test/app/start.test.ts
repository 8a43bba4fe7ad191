/** How a server starts in various environments: real processes. */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
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

it("refuses a port that is in use before it loads the model", async () => {
  const other = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => other.once("listening", resolve));
  const { port } = other.address() as { port: number };
  await expect(serve(["--port", String(port), "--model", "/nowhere/at-all"])).rejects.toThrow(
    new RegExp(`EADDRINUSE: port ${port} on 127.0.0.1 is in use; choose another with --port`),
  );
  other.close();
});

it("shuts down in good order when the npx that started it is stopped", async () => {
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
