/** Several models in one server: real processes, models and sockets. */
import { cp, mkdir, mkdtemp, readdir, rename, rm, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { writeRandomCheckpoint } from "../../src/compiler/random-checkpoint.ts";
import { TINY_MAMBA2, TINY_SHAPE } from "../helpers/checkpoints.ts";
import { DEFAULT_MODEL_DIR } from "../helpers/real-server.ts";
import { type ServedProcess, ServingFolder } from "../helpers/served-process.ts";
import { open } from "../helpers/websocket-client.ts";

const VOCAB_SIZE = 4096;
const TOKENIZER = ["tokenizer.json", "tokenizer_config.json"];

let folder: ServingFolder;
/** Has `alpha` and `beta`, two small models. */
let models: string;
const running: ServedProcess[] = [];

beforeAll(async () => {
  folder = await ServingFolder.make();
  models = await mkdtemp(path.join(tmpdir(), "densemamba-models-"));
  await writeModel("alpha", { ...TINY_SHAPE, vocabSize: VOCAB_SIZE }, 1);
  await writeModel("beta", { ...TINY_MAMBA2, vocabSize: VOCAB_SIZE }, 2);
});
afterEach(() => {
  for (const server of running.splice(0)) server.kill("SIGKILL");
});
afterAll(async () => {
  await folder.remove();
  await rm(models, { recursive: true, force: true });
});

async function writeModel(name: string, shape: Parameters<typeof writeRandomCheckpoint>[0]["shape"], seed: number) {
  const outDir = path.join(models, name);
  await writeRandomCheckpoint({ outDir, shape, seed });
  for (const file of TOKENIZER) await cp(path.join(DEFAULT_MODEL_DIR, file), path.join(outDir, file));
}

async function serve(...args: string[]): Promise<ServedProcess> {
  const server = await folder.serve(args);
  running.push(server);
  return server;
}

const modelFlags = (...names: string[]) => names.flatMap((name) => ["--model", path.join(models, name)]);

async function ask(server: ServedProcess, method: string, route: string, body?: object) {
  const response = await fetch(server.url + route, {
    method,
    ...(body && { headers: { "content-type": "application/json" }, body: JSON.stringify(body) }),
  });
  const text = await response.text();
  return { status: response.status, headers: response.headers, text, json: parsed(text) };
}

function parsed(text: string) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const complete = (server: ServedProcess, body: object) =>
  ask(server, "POST", "/v1/completions", { prompt: "Once upon a time", max_tokens: 8, temperature: 0, ...body });

async function states(server: ServedProcess): Promise<Record<string, string>> {
  const { json } = await ask(server, "GET", "/ready");
  return Object.fromEntries(
    Object.entries(json.models as Record<string, { value: string }>).map(([name, { value }]) => [name, value]),
  );
}

const loads = (server: ServedProcess, model: string) =>
  server.metric("densemamba_model_loads_total", `model_name="${model}"`);
const unloads = (server: ServedProcess, model: string) =>
  server.metric("densemamba_model_unloads_total", `model_name="${model}"`);

describe("three models", () => {
  let server: ServedProcess;
  beforeAll(async () => {
    server = await folder.serve(["--model", `tales=${DEFAULT_MODEL_DIR}`, "--model", models]);
  });
  afterAll(async () => {
    expect(await server.stop()).toBe(0);
  });

  it("are loaded at their first use, each once, however many requests come at once", async () => {
    expect(await states(server)).toEqual({ tales: "loaded", alpha: "unloaded", beta: "unloaded" });
    const answers = await Promise.all([1, 2, 3, 4].map(() => complete(server, { model: "alpha" })));
    const texts = answers.map(({ json }) => json.choices[0].text);
    expect(new Set(texts).size).toBe(1);
    expect(answers.map(({ json }) => json.model)).toEqual(["alpha", "alpha", "alpha", "alpha"]);
    expect(await loads(server, "alpha")).toBe(1);
    expect(await states(server)).toEqual({ tales: "loaded", alpha: "loaded", beta: "unloaded" });
  });

  it("are chosen by `model`; without it the first answers", async () => {
    const answers = await Promise.all(
      [{}, { model: "" }, { model: "tales" }, { model: "beta" }].map((body) => complete(server, body)),
    );
    expect(answers.map(({ json }) => json.model)).toEqual(["tales", "tales", "tales", "beta"]);
    expect(answers[0]!.json.choices[0].text).not.toBe(answers[3]!.json.choices[0].text);
    const streamed = await ask(server, "POST", "/v1/chat/completions", {
      model: "beta",
      messages: [{ role: "user", content: "Hi" }],
      max_tokens: 3,
      stream: true,
    });
    expect(streamed.headers.get("content-type")).toContain("text/event-stream");
    expect(streamed.headers.get("x-request-id")).toMatch(/^req_/);
    expect(streamed.text).toContain('"model":"beta"');
    expect(streamed.text).toContain("data: [DONE]");
    const unknown = await complete(server, { model: "gamma" });
    expect(unknown.status).toBe(404);
    expect(unknown.json.error).toMatchObject({ code: "model_not_found", param: "model" });
    expect(unknown.json.error.message).toContain('this server has "tales", "alpha", "beta"');
    expect((await complete(server, { model: 5 })).json.error).toMatchObject({ code: "invalid_value", param: "model" });
  });

  it("without a body to name one, are chosen by the query", async () => {
    expect((await ask(server, "GET", "/tokenizer_info?model=alpha")).json.vocab_size).toBe(VOCAB_SIZE);
    expect((await ask(server, "GET", "/tokenizer_info?model=gamma")).status).toBe(404);
    expect((await ask(server, "GET", "/tokenizer_info?model=alpha&model=beta")).status).toBe(400);
    expect((await ask(server, "POST", "/tokenize", { model: "beta", prompt: "Hi" })).status).toBe(200);
  });

  it("are listed with their states, and found by their names", async () => {
    const { json } = await ask(server, "GET", "/v1/models");
    expect(json.data.map(({ id }: { id: string }) => id)).toEqual(["tales", "alpha", "beta"]);
    expect(json.data[0]).toMatchObject({ densemamba: { family: "dense_mamba" }, status: { value: "loaded" } });
    expect((await ask(server, "GET", "/v1/models/beta")).json).toMatchObject({
      id: "beta",
      densemamba: { family: "mamba2" },
    });
    expect((await ask(server, "GET", "/v1/models/gamma")).status).toBe(404);
  });

  it("have sessions of their own: a session is found where it is, and nowhere else", async () => {
    const made = await ask(server, "POST", "/v1/sessions", { model: "alpha", session_id: "of-alpha" });
    expect(made).toMatchObject({ status: 201, json: { model: "alpha" } });
    await ask(server, "POST", "/v1/sessions", { session_id: "of-tales" });
    // No model is named: the session tells.
    expect((await complete(server, { session_id: "of-alpha" })).json.model).toBe("alpha");
    expect((await ask(server, "GET", "/v1/sessions/of-alpha")).json).toMatchObject({ model: "alpha", num_tokens: 13 });
    expect((await complete(server, { model: "beta", session_id: "of-alpha" })).json.error.code).toBe(
      "session_not_found",
    );
    const forked = await ask(server, "POST", "/v1/sessions/of-alpha/fork", { session_id: "twin" });
    expect(forked.json).toMatchObject({ model: "alpha", num_tokens: 13 });
    const listed = await ask(server, "GET", "/v1/sessions?order=asc");
    expect(listed.json.data.map(({ id, model }: Record<string, string>) => `${id} ${model}`).sort()).toEqual([
      "of-alpha alpha",
      "of-tales tales",
      "twin alpha",
    ]);
    expect((await ask(server, "GET", "/v1/sessions?model=beta")).json.data).toEqual([]);
    for (const id of ["of-alpha", "twin", "of-tales"]) {
      expect((await ask(server, "DELETE", `/v1/sessions/${id}`)).json.deleted).toBe(true);
    }
  });

  it("have responses of their own, that go on where they are", async () => {
    const input = { input: "Once", max_output_tokens: 4, temperature: 0 };
    const { json: first } = await ask(server, "POST", "/v1/responses", { model: "beta", ...input });
    expect(first).toMatchObject({ model: "beta", status: "incomplete" });
    expect((await ask(server, "GET", `/v1/responses/${first.id}`)).json.output).toEqual(first.output);
    const { json: second } = await ask(server, "POST", "/v1/responses", { previous_response_id: first.id, ...input });
    expect(second).toMatchObject({ model: "beta", previous_response_id: first.id });
    const elsewhere = await ask(server, "POST", "/v1/responses", {
      model: "alpha",
      previous_response_id: first.id,
      ...input,
    });
    expect(elsewhere.json.error.code).toBe("previous_response_not_found");
    expect((await ask(server, "DELETE", `/v1/responses/${first.id}`)).json.deleted).toBe(true);
    expect((await ask(server, "GET", `/v1/responses/${first.id}`)).status).toBe(404);
  });

  it("answer on one WebSocket, each message by its model", async () => {
    const client = await open(server);
    const isEnd = ({ type }: { type?: unknown }) => type === "response.incomplete" || type === "error";
    const body = { input: "Once", max_output_tokens: 4, store: false };
    client.send({ type: "response.create", model: "alpha", ...body });
    client.send({ type: "response.create", model: "beta", ...body });
    client.send({ type: "response.create", ...body });
    client.send({ type: "response.create", model: "gamma", ...body });
    await client.until(isEnd, 4);
    const [alpha] = client.responseIds;
    // It is known to this connection alone.
    client.send({ type: "response.create", previous_response_id: alpha, ...body });
    const ends = (await client.until(isEnd, 5)).filter(isEnd);
    const said = ends.map(({ response, error }) => (response as { model: string } | undefined)?.model ?? error);
    expect(said).toMatchObject(["alpha", "beta", "tales", { code: "model_not_found" }, "alpha"]);
    client.send({ type: "response.create", model: "alpha", ...body, max_output_tokens: "many" });
    expect((await client.until(isEnd, 6)).at(-1)).toMatchObject({ error: { code: "invalid_value" } });
    client.socket.close();
  });

  it("count their own requests, and the process's once", async () => {
    const { text } = await ask(server, "GET", "/metrics");
    expect(text.match(/^process_resident_memory_bytes{/gm)).toHaveLength(1);
    expect(text.match(/^# TYPE densemamba_generation_tokens_total /gm)).toHaveLength(1);
    for (const name of ["tales", "alpha", "beta"]) {
      expect(await server.metric("densemamba_generation_tokens_total", `model_name="${name}"`)).toBeGreaterThan(0);
      expect(
        await server.metric("densemamba_http_requests_total", `status="200",model_name="${name}"`),
      ).toBeGreaterThan(0);
      expect(await server.metric("densemamba_model_loaded_bytes", `model_name="${name}"`)).toBeGreaterThan(1e5);
    }
  });

  it("with keep_alive a request has its model unloaded; its next one loads it again", async () => {
    expect((await complete(server, { model: "beta", keep_alive: "soon" })).json.error).toMatchObject({
      param: "keep_alive",
    });
    const before = await complete(server, { model: "beta", keep_alive: 0 });
    await expect.poll(() => states(server), { timeout: 5000 }).toMatchObject({ alpha: "loaded", beta: "unloaded" });
    expect(await unloads(server, "beta")).toBe(1);
    expect((await complete(server, { model: "beta" })).json.choices).toEqual(before.json.choices);
    expect(await loads(server, "beta")).toBe(2);
  });

  it("refuse what cannot be read as before", async () => {
    expect((await ask(server, "GET", "/v1/nothing?model=alpha")).status).toBe(404);
    expect((await ask(server, "GET", "/v1/completions")).status).toBe(405);
    const broken = await fetch(`${server.url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: '{"model": "alpha", ',
    });
    expect(broken.status).toBe(400);
    expect((await ask(server, "POST", "/v1/completions")).status).toBe(400);
  });
});

it("sessions survive when their model is unloaded to make room, and go on exactly", async () => {
  const flags = ["--model", `tales=${DEFAULT_MODEL_DIR}`, ...modelFlags("alpha"), "--max-batch", "4"];
  const [roomy, tight] = [await serve(...flags), await serve(...flags, "--models-bytes", "24MB")];
  const talk = async (server: ServedProcess) => {
    const texts: string[] = [];
    for (const model of ["tales", "alpha"]) await ask(server, "POST", "/v1/sessions", { model, session_id: model });
    for (let turn = 0; turn < 3; turn++) {
      for (const model of ["tales", "alpha"]) {
        texts.push((await complete(server, { model, session_id: model })).json.choices[0].text);
      }
    }
    return texts;
  };
  expect(await talk(tight)).toEqual(await talk(roomy));
  expect([await loads(roomy, "tales"), await loads(roomy, "alpha")]).toEqual([1, 1]);
  expect([await loads(tight, "tales"), await loads(tight, "alpha")]).toEqual([3, 3]);
  expect(Object.values(await states(tight)).sort()).toEqual(["loaded", "unloaded"]);
}, 60_000);

it("a model that fails to load is an error for its own requests; the others are served", async () => {
  await cp(path.join(models, "beta"), path.join(models, "broken"), { recursive: true });
  await truncate(path.join(models, "broken", "model.safetensors"), 1000);
  const server = await serve(...modelFlags("alpha", "broken", "beta"));
  expect(server.stdout).toMatch(/broken: .*could not be loaded/);
  expect(await states(server)).toEqual({ alpha: "loaded", broken: "failed", beta: "unloaded" });
  expect((await ask(server, "GET", "/v1/models/broken")).json).toMatchObject({
    id: "broken",
    status: { value: "failed" },
  });
  const refused = await complete(server, { model: "broken" });
  expect(refused.status).toBe(503);
  expect(refused.json.error).toMatchObject({ code: "model_load_failed", param: "model" });
  expect(Number(refused.headers.get("retry-after"))).toBeLessThanOrEqual(10);
  expect((await complete(server, { model: "beta" })).status).toBe(200);

  // Prepared, but its artifact has gone since.
  const cache = path.join(folder.dir, "cache");
  const artifact = (await readdir(cache)).find((name) => name.startsWith("beta-"))!;
  await complete(server, { model: "beta", keep_alive: 0 });
  await expect.poll(async () => (await states(server)).beta, { timeout: 5000 }).toBe("unloaded");
  await rename(path.join(cache, artifact), path.join(cache, "elsewhere"));
  const gone = await complete(server, { model: "beta", stream: true });
  expect(gone).toMatchObject({ status: 503, json: { error: { code: "model_load_failed" } } });
  expect(await states(server)).toEqual({ alpha: "loaded", broken: "failed", beta: "failed" });
  expect((await complete(server, {})).json.model).toBe("alpha");
  await rename(path.join(cache, "elsewhere"), path.join(cache, artifact));
  await rm(path.join(models, "broken"), { recursive: true });
  expect(await server.stop()).toBe(0);
}, 60_000);

it("with a folder for states each model finds its own after a restart, before it is loaded", async () => {
  const states = await mkdtemp(path.join(tmpdir(), "densemamba-states-"));
  const start = () => serve(...modelFlags("alpha"), "--model", `org:b=${models}/beta`, "--store-dir", states);
  const before = await start();
  for (const model of ["alpha", "org:b"]) {
    await ask(before, "POST", "/v1/sessions", { model, session_id: `of ${model}`.replace(" ", "-") });
    await complete(before, { session_id: `of-${model}` });
  }
  const { json: response } = await ask(before, "POST", "/v1/responses", {
    model: "org:b",
    input: "Hi",
    max_output_tokens: 2,
  });
  expect(await before.stop()).toBe(0);
  expect((await readdir(states)).sort()).toEqual(["alpha", "org%3Ab"]);
  const after = await start();
  expect((await ask(after, "GET", "/v1/sessions/of-org:b")).json).toMatchObject({ model: "org:b", num_tokens: 13 });
  expect((await ask(after, "GET", `/v1/responses/${response.id}`)).json).toMatchObject({ model: "org:b" });
  expect((await ask(after, "GET", "/v1/models/org:b")).json.status).toEqual({ value: "unloaded" });
  expect((await complete(after, { session_id: "of-org:b" })).json.model).toBe("org:b");
  expect(await after.stop()).toBe(0);
  await rm(states, { recursive: true });
}, 60_000);

it("two models with one name are refused at the start, with both paths", async () => {
  const other = path.join(models, "other", "alpha");
  await mkdir(path.dirname(other), { recursive: true });
  await cp(path.join(models, "alpha"), other, { recursive: true });
  await expect(serve(...modelFlags("alpha"), "--model", other)).rejects.toThrow(
    `two models have the name \\"alpha\\": ${path.join(models, "alpha")} and ${other}`,
  );
  const server = await serve(...modelFlags("alpha"), "--model", `mine=${other}`);
  expect(await states(server)).toEqual({ alpha: "loaded", mine: "unloaded" });
  await rm(path.join(models, "other"), { recursive: true });
}, 60_000);

it("a single model is unloaded only if an option says so", async () => {
  const server = await serve(...modelFlags("alpha"), "--keep-alive", "100ms");
  const before = await complete(server, {});
  await expect.poll(() => states(server), { timeout: 5000 }).toEqual({ alpha: "unloaded" });
  expect((await ask(server, "GET", "/ready")).status).toBe(200);
  expect((await complete(server, {})).json.choices).toEqual(before.json.choices);
}, 60_000);

it("the first model must fit into --models-bytes", async () => {
  await expect(serve(...modelFlags("alpha"), "--models-bytes", "1kB")).rejects.toThrow(
    /alpha takes \d+ bytes with its slots, and all loaded models may take 1000 together/,
  );
}, 60_000);
