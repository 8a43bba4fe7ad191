/** What survives a server: real processes that are stopped, stopped twice, or killed. */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { complete, readStream, type ServedProcess, ServingFolder } from "../helpers/served-process.ts";

const PROMPT = "Once upon a time there was a king who";
/**
 * Long enough for requests to be answered meanwhile on a busy machine, and shorter than an answer
 * of 16,000 tokens takes.
 */
const UNHURRIED = ["--shutdown-ms", "6000"];
const SAMPLED = { temperature: 0.8, seed: 5, presence_penalty: 0.4, ignore_eos: true };

let folder: ServingFolder;
const running: ServedProcess[] = [];

beforeAll(async () => {
  folder = await ServingFolder.make();
});
afterAll(async () => {
  for (const server of running) server.kill("SIGKILL");
  await folder.remove();
});

async function serve(...args: string[]): Promise<ServedProcess> {
  const server = await folder.serve(args);
  running.push(server);
  return server;
}

const sessionOf = async (server: ServedProcess, id: string) =>
  (await (await fetch(`${server.url}/v1/sessions/${id}`)).json()) as { num_tokens: number; position: number };

describe("SIGTERM during an answer", { timeout: 300_000 }, () => {
  it("refuses new requests, interrupts running ones, exits with 0, and the session continues after a restart", async () => {
    const store = ["--store-dir", path.join(folder.dir, "interrupted")];
    const first = await serve(...store, ...UNHURRIED);
    expect(first.stdout).toMatch(/stored in +memory \(1 GiB\), \S+interrupted \(16 GiB, 0 found\)/);
    await first.post("/v1/sessions", { session_id: "tale" });
    const noSpecialTokens = { 0: -100, 1: -100, 2: -100, 3: -100, 4: -100 }; // or it would end, or not be read back as it was written
    const limits = { max_output_tokens: 16_000, temperature: 0, logit_bias: noSpecialTokens };
    const asked = { input: "Tell me of the king.", background: true, ...limits };
    const background = await json<ResponseObject>(await first.post("/v1/responses", asked));
    const body = { session_id: "tale", prompt: PROMPT, max_tokens: 16_000, stream: true, return_token_ids: true };
    const response = await first.post("/v1/completions", { ...body, ...SAMPLED });
    let refused: Promise<[Response, Response]> | undefined;
    const streamed = await readStream(response, (tokenIds) => {
      if (tokenIds.length < 5 || refused !== undefined) return;
      first.kill("SIGTERM");
      refused = askWhileStopping(first);
    });
    expect(streamed.error).toMatchObject({ code: "shutting_down", message: expect.stringContaining("session tale") });
    const [ready, other] = await refused!;
    expect([ready.status, (await json<{ status: string }>(ready)).status]).toEqual([503, "stopping"]);
    expect([other.status, other.headers.get("retry-after")]).toEqual([503, "2"]);
    expect(await first.ended, first.stderr).toBe(0);

    const second = await serve(...store);
    expect(second.stdout).toContain("3 found");
    const { num_tokens: numTokens, position } = await sessionOf(second, "tale");
    const rest = await complete(second, { session_id: "tale", prompt: "", max_tokens: 20, ...SAMPLED });
    expect(rest.cachedTokens).toBe(position);
    expect(rest.promptTokens - rest.cachedTokens).toBe(1);
    const interrupted = await json<ResponseObject>(await fetch(`${second.url}/v1/responses/${background.id}`));
    expect(interrupted).toMatchObject({ status: "failed", error: { message: expect.stringContaining("shut down") } });
    const more = { input: "And then?", max_output_tokens: 4, previous_response_id: background.id };
    const { usage } = await json<ResponseObject>(await second.post("/v1/responses", more));
    expect(usage.input_tokens_details.cached_tokens).toBeGreaterThan(10);
    // As if it had never stopped.
    const whole = await complete(second, { prompt: PROMPT, max_tokens: streamed.tokenIds.length + 20, ...SAMPLED });
    expect(numTokens).toBe(whole.promptTokens + streamed.tokenIds.length);
    expect([...streamed.tokenIds, ...rest.tokenIds]).toEqual(whole.tokenIds);
    expect(await second.stop()).toBe(0);
  });

  it("a second time ends the process at once", async () => {
    const server = await serve("--shutdown-ms", "60000");
    const response = await server.post("/v1/completions", { prompt: PROMPT, max_tokens: 16_000, stream: true });
    await response.body!.getReader().read();
    server.kill("SIGTERM");
    await expect.poll(() => server.stderr).toContain("shutting down");
    server.kill("SIGTERM");
    expect(await server.ended).toBe(143);
  });
});

describe.skipIf(process.platform !== "linux")("with a thread that does not return", () => {
  /**
   * Node's pool has one that is busy for hours, as a runtime or a disk that hangs would have it.
   */
  async function serveHanging(...args: string[]): Promise<ServedProcess> {
    const hang = 'import{pbkdf2}from"node:crypto";pbkdf2("a","b",2**31-1,64,"sha512",()=>{})';
    const env = { ...process.env, NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(hang)}` };
    const server = await folder.serve(args, process.execPath, { env });
    running.push(server);
    return server;
  }

  it("SIGTERM ends the server cleanly", async () => {
    const server = await serveHanging();
    expect(await server.stop()).toBe(0);
  });

  it("and twice ends it at once, also while texts are encoded", async () => {
    const server = await serveHanging("--shutdown-ms", "600000");
    const numIdle = childrenOf(server.pid).length;
    const texts = ["x", "y"].map((letter) =>
      server.post("/tokenize", { prompt: letter.repeat(500_000) }).catch(() => {}),
    );
    await expect.poll(() => childrenOf(server.pid).length).toBeGreaterThan(numIdle);
    const children = childrenOf(server.pid);
    server.kill("SIGTERM");
    await expect.poll(() => server.stderr).toContain("shutting down");
    server.kill("SIGTERM");
    expect(await server.ended).toBe(143);
    await Promise.all(texts);
    await expect.poll(() => children.filter((id) => existsSync(`/proc/${id}`))).toEqual([]);
  });
});

describe("SIGHUP", { timeout: 300_000 }, () => {
  const endless = { session_id: "tale", prompt: PROMPT, max_tokens: 16_000, stream: true, ...SAMPLED };

  it("ends the server as SIGTERM does", async () => {
    const server = await serve("--store-dir", path.join(folder.dir, "hangup"), ...UNHURRIED);
    await server.post("/v1/sessions", { session_id: "tale" });
    const response = await server.post("/v1/completions", endless);
    let isKilled = false;
    const streamed = await readStream(response, () => {
      if (!isKilled) server.kill("SIGHUP");
      isKilled = true;
    });
    expect(streamed.error).toMatchObject({ code: "shutting_down" });
    expect(await server.ended, server.stderr).toBe(0);
  });

  it.skipIf(spawnSync("script", ["--version"]).status !== 0)(
    "interrupts the session when the terminal closes, although nothing can be logged",
    async () => {
      const store = ["--store-dir", path.join(folder.dir, "terminal")];
      const terminal = path.join(import.meta.dirname, "in-terminal.sh");
      const first = await folder.serve([...store, ...UNHURRIED], terminal);
      running.push(first);
      await first.post("/v1/sessions", { session_id: "tale" });
      const response = await first.post("/v1/completions", endless);
      const streamed = await readStream(response, () => first.kill("SIGKILL"));
      expect(streamed.error).toMatchObject({ code: "shutting_down" });
      const second = await serveAfter(store);
      expect((await sessionOf(second, "tale")).num_tokens).toBeGreaterThan(streamed.tokenIds.length);
      expect(await second.stop()).toBe(0);
    },
  );

  /** Once the first one has given its folder back. */
  async function serveAfter(store: readonly string[]): Promise<ServedProcess> {
    try {
      return await serve(...store);
    } catch (error) {
      if (!String(error).includes("is in use by")) throw error;
      return serveAfter(store);
    }
  }
});

describe("kill -9", () => {
  it("loses nothing that was answered: sessions, responses and their inputs", async () => {
    const store = ["--store-dir", path.join(folder.dir, "killed")];
    const first = await serve(...store);
    const turn = { max_tokens: 12, ...SAMPLED };
    await first.post("/v1/sessions", { session_id: "tale" });
    const begun = await complete(first, { session_id: "tale", prompt: PROMPT, ...turn });
    const asked = { input: "Tell me of the king.", max_output_tokens: 8, temperature: 0 };
    const response = await json<ResponseObject>(await first.post("/v1/responses", asked));
    const long = { ...asked, max_output_tokens: 16_000, background: true };
    const background = await json<ResponseObject>(await first.post("/v1/responses", long));
    first.kill("SIGKILL");
    expect(await first.ended).toBe("SIGKILL");

    const second = await serve(...store);
    const goneOn = await complete(second, { session_id: "tale", prompt: " One day", ...turn });
    const stored = await (await fetch(`${second.url}/v1/responses/${response.id}`)).json();
    expect(stored).toEqual(response);
    // What was not finished has not, and is not waited for.
    const lost = await json<ResponseObject>(await fetch(`${second.url}/v1/responses/${background.id}`));
    expect(lost).toMatchObject({ status: "failed", error: { message: expect.stringContaining("went away") } });
    const more = { ...asked, input: "And then?", previous_response_id: response.id };
    const { usage } = await json<ResponseObject>(await second.post("/v1/responses", more));
    expect(usage.input_tokens_details.cached_tokens).toBe(response.usage.total_tokens - 1);

    // The same without a break.
    const uninterrupted = { session_id: "reference" };
    await second.post("/v1/sessions", uninterrupted);
    expect((await complete(second, { ...uninterrupted, prompt: PROMPT, ...turn })).tokenIds).toEqual(begun.tokenIds);
    expect(await complete(second, { ...uninterrupted, prompt: " One day", ...turn })).toEqual(goneOn);
    second.kill("SIGKILL");
  });
});

function childrenOf(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8");
  return children
    .split(" ")
    .filter((id) => id !== "")
    .map(Number);
}

interface ResponseObject {
  readonly id: string;
  readonly usage: { readonly total_tokens: number; readonly input_tokens_details: { readonly cached_tokens: number } };
}

async function json<T>(response: Response): Promise<T> {
  return (await response.json()) as T;
}

describe("a full disk", () => {
  it("stores no session that would not survive a restart: the request, the log and the metrics say so", async () => {
    // Files of the process may have 64 KiB; a state of the packaged model has 266.
    const args = ["--store-dir", path.join(folder.dir, "full"), "--prefix-disk-bytes", "1GiB"];
    const server = await folder.serve(args, path.join(import.meta.dirname, "../sessions/stores/with-file-limit.sh"));
    running.push(server);
    await server.post("/v1/sessions", { session_id: "tale" });
    expect(await server.metric("densemamba_store_tier_available", 'store="conversations",tier="disk"')).toBe(1);
    const turn = { session_id: "tale", prompt: PROMPT, max_tokens: 6, ...SAMPLED };
    await expect(complete(server, turn)).rejects.toThrow(/503: .*store_unavailable/);
    expect(await server.metric("densemamba_store_tier_available", 'store="conversations",tier="disk"')).toBe(0);
    await expect
      .poll(() => server.stderr)
      .toMatch(/"level":40.*"tier":"disk".*cannot be written; continuing without it: .* is full: EFBIG/);
    expect((await sessionOf(server, "tale")).num_tokens).toBe(0);
    expect((await complete(server, { ...turn, session_id: undefined })).tokenIds).toHaveLength(6);
    expect(await server.stop()).toBe(0);
  });
});

/** Two requests that come while the server still ends an older one. */
async function askWhileStopping(server: ServedProcess): Promise<[Response, Response]> {
  for (;;) {
    const ready = await fetch(`${server.url}/ready`);
    if (ready.status === 503) return [ready, await server.post("/v1/completions", { prompt: "x", max_tokens: 1 })];
  }
}
