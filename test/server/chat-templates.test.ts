/**
 * Chat templates that take long or much, in a real server: it answers meanwhile, and leaves no
 * process behind.
 */
import { readFileSync } from "node:fs";
import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { setInterval } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { DEFAULT_MODEL_DIR, post } from "../helpers/real-server.ts";
import { type ServedProcess, ServingFolder } from "../helpers/served-process.ts";

/**
 * As Gemma's does, it reads all messages for each message. Its output is short, to be read quickly.
 */
const QUADRATIC =
  "{% for m in messages %}{% set ns = namespace(k=0) %}{% for n in messages %}{% if n.role == 'user' %}{% set ns.k = ns.k + 1 %}{% endif %}{% endfor %}{% if loop.last %}{{ ns.k }}: {{ m.content }}\n{% endif %}{% endfor %}";
const ENDLESS = "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}";
const HI = [{ role: "user", content: "Hi" }];

let folder: ServingFolder;
let server: ServedProcess;

beforeAll(async () => {
  folder = await ServingFolder.make();
  const model = path.join(folder.dir, "model");
  await mkdir(model);
  for (const name of ["config.json", "model.safetensors", "tokenizer.json", "generation_config.json"]) {
    await symlink(path.join(DEFAULT_MODEL_DIR, name), path.join(model, name));
  }
  const config = JSON.parse(await readFile(path.join(DEFAULT_MODEL_DIR, "tokenizer_config.json"), "utf8"));
  await writeFile(path.join(model, "tokenizer_config.json"), JSON.stringify({ ...config, chat_template: QUADRATIC }));
  server = await folder.serve(["--model", model, "--trust-request-templates"]);
});

afterAll(async () => {
  await server?.stop();
  await folder?.remove();
});

const chat = (body: object) => post(`${server.url}/v1/chat/completions`, { messages: HI, max_tokens: 1, ...body });

/** The longest that /health took while this went on, in milliseconds. */
async function slowestHealth(work: Promise<unknown>): Promise<number> {
  let slowest = 0;
  let isOver = false;
  const over = work.finally(() => {
    isOver = true;
  });
  for await (const _ of setInterval(20)) {
    if (isOver) break;
    const askedAtMs = performance.now();
    await (await fetch(`${server.url}/health`)).text();
    slowest = Math.max(slowest, performance.now() - askedAtMs);
  }
  await over;
  return slowest;
}

test("other requests are answered while a long chat is rendered", async () => {
  const messages = Array.from({ length: 1500 }, (_, i) => ({ role: i % 2 ? "assistant" : "user", content: "w" }));
  expect((await chat({})).status).toBe(200);
  // The machine may be busy with others: the best of a few.
  const tries: number[] = [];
  while (tries.length < 3 && Math.min(...tries) > 200) {
    const [long, short] = [chat({ messages }), chat({})];
    tries.push(await slowestHealth(Promise.all([long, short])));
    expect((await short).status).toBe(200);
    // It is rendered in time, or refused by the limit, which the answer names.
    expect(await (await long).text()).toMatch(/"choices"|takes longer than \d+ ms|at most \d+ are allowed/);
  }
  expect(Math.min(...tries)).toBeLessThan(200);
}, 120_000);

test.each([
  ENDLESS,
  "{{ range(2000000) | join(',') | length }}",
  "{{ 'a' * 10 ** 9 }}",
  "{% set ns = namespace(l=[]) %}{% for i in range(1000) %}{% set ns.l = ns.l + [('a' * 4000000).replace('a', 'b') ~ i] %}{% endfor %}",
])("a request's template %s fails alone", async (chat_template) => {
  const answer = await chat({ chat_template });
  expect(answer.status).toBe(400);
  expect(await answer.json()).toMatchObject({ error: { param: "chat_template" } });
  expect((await chat({ chat_template: "{{ messages[0].content }}" })).status).toBe(200);
});

test.skipIf(process.platform !== "linux").each(["SIGKILL", "SIGTERM"] as const)(
  "%s leaves no process",
  async (signal) => {
    const other = await folder.serve(["--trust-request-templates"]);
    const body = { messages: HI, max_tokens: 1, chat_template: ENDLESS };
    const rendering = post(`${other.url}/v1/chat/completions`, body).catch(() => {});
    const children = () => readFileSync(`/proc/${other.pid}/task/${other.pid}/children`, "utf8").trim().split(" ");
    await expect.poll(() => rendererAmong(children()), { timeout: 20_000 }).toBeDefined();
    const renderer = rendererAmong(children())!;
    other.kill(signal);
    await other.ended;
    await expect.poll(() => isAlive(renderer), { timeout: 20_000 }).toBe(false);
    await rendering;
  },
);

function rendererAmong(pids: readonly string[]): string | undefined {
  return pids.find((pid) => pid !== "" && commandOf(pid).includes("render-main"));
}

function isAlive(pid: string): boolean {
  return commandOf(pid).includes("render-main");
}

function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return "";
  }
}
