import { readFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { complete, type ServedProcess, ServingFolder } from "../helpers/served-process.ts";

const MIB = 2 ** 20;
const MANY_TOKENS = ["--max-body-bytes", `${32 * MIB}`, "--max-prompt-tokens", "100000000"];
const words = (numBytes: number) => "once upon a time, ".repeat(Math.ceil(numBytes / 18)).slice(0, numBytes);

let folder: ServingFolder;
beforeAll(async () => {
  folder = await ServingFolder.make();
});
afterAll(() => folder.remove());

/** A server's log lines as JSON. */
const logOf = (server: ServedProcess) =>
  server.stderr
    .split("\n")
    .filter((line) => line.startsWith("{") && line.endsWith("}"))
    .map((line) => JSON.parse(line) as { path?: string; status?: number });

/** Of the process and all that it started. */
async function residentBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8").catch(() => "");
  const own = Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024;
  const others = await Promise.all(
    children
      .split(" ")
      .filter(Boolean)
      .map((child) => residentBytes(Number(child))),
  );
  return others.reduce((sum, bytes) => sum + bytes, own);
}

/** @returns the longest that /health took, and the most memory, while the work went on */
async function watchWhile(server: ServedProcess, work: Promise<unknown>) {
  let isDone = false;
  void work.finally(() => {
    isDone = true;
  });
  const seen = { healthMs: 0, bytes: 0 };
  while (!isDone) {
    const begin = performance.now();
    await (await fetch(`${server.url}/health`)).text();
    seen.healthMs = Math.max(seen.healthMs, performance.now() - begin);
    seen.bytes = Math.max(seen.bytes, await residentBytes(server.pid));
  }
  return seen;
}

describe.skipIf(process.platform !== "linux")("a prompt of 16 MiB", () => {
  test.each([
    [
      "of words",
      words(16 * MIB),
      { code: "context_length_exceeded", message: expect.stringContaining("maximum context length is 131072 tokens") },
    ],
    [
      "of one letter",
      "x".repeat(16 * MIB),
      { code: "invalid_value", message: expect.stringContaining("at most 524288") },
    ],
  ])("%s is refused soon, in little memory, while others are answered", async (_, prompt, error) => {
    const server = await folder.serve(["--max-body-bytes", `${32 * MIB}`]);
    try {
      // Long texts have had their process.
      expect((await server.post("/tokenize", { prompt: words(100_000) })).status).toBe(200);
      const idleBytes = await residentBytes(server.pid);
      const refused = server.post("/v1/completions", { prompt, max_tokens: 1 });
      const seen = await watchWhile(server, refused);
      const answer = await refused;
      expect(answer.status).toBe(400);
      expect(await answer.json()).toMatchObject({ error });
      expect(seen.bytes - idleBytes).toBeLessThan(300 * MIB);
      expect(seen.healthMs).toBeLessThan(1000);
    } finally {
      server.kill("SIGKILL");
    }
  });
});

test("a completion does not wait for long texts, which end when their clients disconnect", async () => {
  const server = await folder.serve(MANY_TOKENS);
  try {
    const gone = new AbortController();
    const long = Array.from({ length: 4 }, () => server.post("/tokenize", { prompt: words(2 * MIB) }, gone.signal));
    const outcome = Promise.allSettled(long);
    const prompts = [server.post("/v1/completions", { prompt: words(8 * MIB), max_tokens: 1 }, gone.signal)];
    const refused = Promise.allSettled(prompts);
    await complete(server, { prompt: "Once", max_tokens: 1 });
    expect(await Promise.race([outcome, refused, "still at it"])).toBe("still at it");
    gone.abort();
    await Promise.all([outcome, refused]);
    await expect.poll(() => logOf(server).filter(({ status }) => status === 499).length).toBe(5);
    expect((await server.post("/tokenize", { prompt: words(100_000) })).status).toBe(200);
  } finally {
    server.kill("SIGKILL");
  }
});

test("a long text does not delay the shutdown", async () => {
  const server = await folder.serve(MANY_TOKENS);
  const prompt = words(16 * MIB);
  const requests = [
    server.post("/v1/completions", { prompt, max_tokens: 1 }),
    server.post("/tokenize", { prompt }),
    server.post("/v1/chat/completions", { messages: [{ role: "user", content: prompt }], max_tokens: 1 }),
  ];
  const statuses = Promise.all(requests.map((request) => request.then(({ status }) => status)));
  await complete(server, { prompt: "Once", max_tokens: 1 });
  const begin = performance.now();
  server.kill("SIGTERM");
  expect(await statuses).toEqual([503, 503, 503]);
  expect(await server.ended).toBe(0);
  expect(performance.now() - begin).toBeLessThan(10_000);
});
