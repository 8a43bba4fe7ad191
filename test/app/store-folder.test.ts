/** What can happen to a server's folder: real processes, a disk that fills up, and others. */
import { execFileSync } from "node:child_process";
import { mkdir, rename, rm } from "node:fs/promises";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { complete, readStream, type ServedProcess, ServingFolder } from "../helpers/served-process.ts";

const PROMPT = "Once upon a time there was a king who";
const SHORT = { max_output_tokens: 2, temperature: 0 };

interface ResponseObject {
  readonly id: string;
  readonly status: string;
  readonly store: boolean;
}

let folder: ServingFolder;
const running: ServedProcess[] = [];
const mounts: string[] = [];

beforeAll(async () => {
  folder = await ServingFolder.make();
});
afterEach(async () => {
  for (const server of running.splice(0)) {
    server.kill("SIGKILL");
    await server.ended;
  }
  for (const dir of mounts.splice(0)) execFileSync("umount", [dir]);
});
afterAll(() => folder.remove());

async function serve(dir: string): Promise<ServedProcess> {
  const server = await folder.serve(["--store-dir", dir, "--prefix-bytes", "0"]);
  running.push(server);
  return server;
}

const json = async <T>(response: Response) => (await response.json()) as T;
const statusOf = async (server: ServedProcess, route: string, method = "GET") =>
  (await fetch(server.url + route, { method })).status;
const respond = async (server: ServedProcess) =>
  json<ResponseObject>(await server.post("/v1/responses", { input: "Tell me of the king.", ...SHORT }));

/** Each test starts a server several times. */
const SLOW = { timeout: 240_000 };

describe.skipIf(withoutMounts() !== "")(`a disk of 2 MiB${withoutMounts()}`, SLOW, () => {
  async function mountDisk(name: string): Promise<string> {
    const dir = path.join(folder.dir, name);
    await mkdir(dir);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=2m", "densemamba-test", dir]);
    mounts.push(dir);
    return dir;
  }

  it("that is full: stored answers survive kill -9, others say that they are not stored, and deleting frees space", async () => {
    const dir = await mountDisk("full");
    const first = await serve(dir);
    await first.post("/v1/sessions", { session_id: "tale" });
    await complete(first, { session_id: "tale", prompt: PROMPT, max_tokens: 2 });
    const answers: ResponseObject[] = [];
    for (let i = 0; i < 5; i++) {
      answers.push(...(await Promise.all(Array.from({ length: 4 }, () => respond(first)))));
    }
    expect(answers.every(({ status }) => status === "incomplete" || status === "completed")).toBe(true);
    const stored = answers.filter(({ store }) => store);
    const unstored = answers.filter(({ store }) => !store);
    expect(stored.length).toBeGreaterThan(2);
    expect(unstored.length).toBeGreaterThan(2);
    for (const { id } of unstored) expect(await statusOf(first, `/v1/responses/${id}`)).toBe(404);
    const session = await (await fetch(`${first.url}/v1/sessions/tale`)).json();
    const turn = await first.post("/v1/completions", { session_id: "tale", prompt: " One day", max_tokens: 2 });
    expect([turn.status, await turn.json()]).toMatchObject([503, { error: { code: "store_unavailable" } }]);
    expect(await (await fetch(`${first.url}/v1/sessions/tale`)).json()).toEqual(session);
    first.kill("SIGKILL");
    expect(await first.ended).toBe("SIGKILL");

    const second = await serve(dir);
    for (const { id } of stored) expect(await statusOf(second, `/v1/responses/${id}`)).toBe(200);
    expect(await (await fetch(`${second.url}/v1/sessions/tale`)).json()).toEqual(session);
    expect((await respond(second)).store).toBe(false);
    for (const { id } of stored.slice(0, 2)) expect(await statusOf(second, `/v1/responses/${id}`, "DELETE")).toBe(200);
    expect((await respond(second)).store).toBe(true);
    expect(await statusOf(second, "/v1/sessions/tale", "DELETE")).toBe(200);
    expect(await second.stop()).toBe(0);
  });

  it("that becomes read-only: entries can be read, nothing is reported as stored, and the server shuts down cleanly", async () => {
    const dir = await mountDisk("read-only");
    const server = await serve(dir);
    await server.post("/v1/sessions", { session_id: "tale" });
    await complete(server, { session_id: "tale", prompt: PROMPT, max_tokens: 2 });
    const stored = await respond(server);
    execFileSync("mount", ["-o", "remount,ro", dir]);
    expect((await respond(server)).store).toBe(false);
    const turn = await server.post("/v1/completions", { session_id: "tale", prompt: " One day", max_tokens: 2 });
    expect(turn.status).toBe(503);
    expect(await statusOf(server, "/v1/sessions/tale")).toBe(200);
    expect(await statusOf(server, `/v1/responses/${stored.id}`)).toBe(200);
    expect(await statusOf(server, `/v1/responses/${stored.id}`, "DELETE")).toBe(503);
    expect(await statusOf(server, "/ready")).toBe(200);
    const endless = { session_id: "tale", prompt: " One day", max_tokens: 16_000, ignore_eos: true, stream: true };
    const answer = await server.post("/v1/completions", endless);
    let stopped: Promise<number | string> | undefined;
    const { error } = await readStream(answer, () => {
      stopped ??= server.stop();
    });
    expect(error).toMatchObject({ code: "store_unavailable" });
    expect(await stopped, server.stderr).toBe(0);
    await expect(serve(dir)).rejects.toThrow(/store_unavailable: the disk of .* EROFS/);
  });
});

describe("a folder", SLOW, () => {
  it("of a paused server cannot be taken by another", async () => {
    const dir = path.join(folder.dir, "paused");
    const first = await serve(dir);
    first.kill("SIGSTOP");
    await expect(serve(dir)).rejects.toThrow(
      new RegExp(`ended with 75 [\\s\\S]*store_in_use: .* is in use by the server with process id ${first.pid} `),
    );
    first.kill("SIGCONT");
    expect(await statusOf(first, "/ready")).toBe(200);
    expect(await first.stop()).toBe(0);
    await serve(dir);
  });

  it("that is moved away is noticed: nothing more is stored, and the server is not ready until it is back", async () => {
    const dir = path.join(folder.dir, "moved");
    const server = await serve(dir);
    const { id } = await respond(server);
    await rename(dir, `${dir}.away`);
    const other = await serve(dir);
    const ready = await fetch(`${server.url}/ready`);
    expect([ready.status, await ready.json()]).toMatchObject([503, { status: "store_lost" }]);
    expect((await respond(server)).store).toBe(false);
    await expect.poll(() => server.stderr).toMatch(/"level":40.*"tier":"disk".*was moved, removed or replaced/);
    expect(await statusOf(server, `/v1/responses/${id}`, "DELETE")).toBe(503);
    await other.stop();
    await rm(dir, { recursive: true });
    await rename(`${dir}.away`, dir);
    expect(await statusOf(server, "/ready")).toBe(200);
    expect(await statusOf(server, `/v1/responses/${id}`, "DELETE")).toBe(200);
  });
});

/** @returns why nothing can be mounted here, or "" */
function withoutMounts(): string {
  if (process.getuid?.() !== 0) return " (skipped: only root may mount)";
  try {
    execFileSync("unshare", ["--mount", "mount", "-t", "tmpfs", "densemamba-probe", "/tmp"], { stdio: "ignore" });
    return "";
  } catch {
    return " (skipped: nothing can be mounted here)";
  }
}
