/** How a server starts in the places that it is put into: real processes. */
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
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

it("beside services of its name: their links are told of in one line, and ignored", async () => {
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

it.runIf(process.getuid?.() === 0)("without a home folder, where all that would be in one is elsewhere", async () => {
  const dir = await mkdtemp(path.join(tmpdir(), "densemamba-homeless-"));
  await chmod(dir, 0o777);
  await chmod(folder.dir, 0o755);
  const env = { PATH: process.env.PATH, HF_HOME: dir, DENSEMAMBA_CACHE_DIR: dir };
  const server = await serve([], undefined, { env, uid: 1_000_650_000, gid: 0 });
  expect(await server.stop()).toBe(0);
  await rm(dir, { recursive: true, force: true });
});

it("refuses a port that is taken before it asks for the model", async () => {
  const other = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => other.once("listening", resolve));
  const { port } = other.address() as { port: number };
  await expect(serve(["--port", String(port), "--model", "/nowhere/at-all"])).rejects.toThrow(
    new RegExp(`EADDRINUSE: port ${port} on 127.0.0.1 is taken; choose another with --port`),
  );
  other.close();
});
