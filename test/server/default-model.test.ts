/**
 * The server over the real generation, engine, runtime and default model: what clients compute from
 * the answers holds.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import type { Engine } from "../../src/engine/engine.ts";
import { type RealServer, startRealServer } from "../helpers/real-server.ts";
import { sseData } from "../helpers/server-deps.ts";

const PROMPT = "Once upon a time there was a king who";

let server: RealServer;
let engine: Engine;
let url: string;

beforeAll(async () => {
  const limits = { maxBatch: 4, maxQueue: 2, prefillChunk: 16 };
  server = await startRealServer({ limits, maxOutputTokens: 4000 });
  ({ engine, url } = server);
});

afterAll(() => server?.close());

function send(route: string, body: object, signal?: AbortSignal): Promise<Response> {
  return fetch(url + route, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    ...(signal && { signal }),
  });
}

interface Answer {
  choices: { text: string; finish_reason: string; logprobs: Logprobs | null; token_ids: number[] }[];
  usage: { prompt_tokens: number; prompt_tokens_details: { cached_tokens: number }; state_bytes: number };
}
interface Logprobs {
  tokens: string[];
  token_logprobs: (number | null)[];
  top_logprobs: (Record<string, number> | null)[];
}

async function complete(body: object): Promise<Answer> {
  const response = await send("/v1/completions", { temperature: 0, ...body });
  expect(response.status, await response.clone().text()).toBe(200);
  return (await response.json()) as Answer;
}

describe("a session of completions", () => {
  const begin = async (id: string, body: object) => {
    expect((await send("/v1/sessions", { session_id: id })).status).toBe(201);
    return complete({ session_id: id, prompt: "Once upon a time", ...body });
  };

  it("does not contain the stop string that its answer left out", async () => {
    const free = (await complete({ prompt: "Once upon a time", max_tokens: 20 })).choices[0]!.text;
    const words = free.split(" ");
    // Whole words, and one that ends and one that begins within a word.
    for (const stop of [` ${words[6]}`, ` ${words[6]} ${words[7]}`, `${words[5]!.slice(1)} ${words[6]!.slice(0, 2)}`]) {
      const told = (await begin(`stop ${stop}`.replaceAll(/[^a-z]/g, "-"), { max_tokens: 20, stop: [stop] }))
        .choices[0]!;
      expect(told.finish_reason).toBe("stop");
      const next = { session_id: `stop ${stop}`.replaceAll(/[^a-z]/g, "-"), prompt: " cat", max_tokens: 1 };
      const response = await send("/v1/completions", { ...next, return_token_ids: true });
      const { choices } = (await response.json()) as { choices: { prompt_token_ids: number[] }[] };
      const past = await send("/detokenize", { tokens: choices[0]!.prompt_token_ids });
      expect(((await past.json()) as { prompt: string }).prompt).toContain(`Once upon a time${told.text} cat`);
    }
  });

  it("is continued by an empty prompt, however its last answer ended", async () => {
    const endings = [
      { max_tokens: 5 },
      { max_tokens: 20, stop: [" a"] },
      { max_tokens: 2, stop: [" a"] },
      { max_tokens: 20, logit_bias: { 2: 100 }, min_tokens: 3 },
    ];
    for (const [i, ending] of endings.entries()) {
      await begin(`ending-${i}`, ending);
      expect(
        (await complete({ session_id: `ending-${i}`, prompt: "", max_tokens: 4 })).usage.prompt_tokens,
      ).toBeGreaterThan(3);
    }
  });
});

it("seeds beyond 2^53 differ, and each repeats its text", async () => {
  const write = async (seed: string) => {
    const body = `{"prompt":"Once","max_tokens":24,"temperature":2,"seed":${seed}}`;
    const headers = { "content-type": "application/json" };
    const response = await fetch(`${url}/v1/completions`, { method: "POST", headers, body });
    return ((await response.json()) as Answer).choices[0]!.text;
  };
  const seeds = ["9007199254740992", "9007199254740993", "9223372036854775807", "-9223372036854775808"];
  const texts: string[] = [];
  for (const seed of seeds) texts.push(await write(seed));
  expect(new Set(texts).size).toBe(seeds.length);
  expect(await write(seeds[1]!)).toBe(texts[1]);
});

it("a response has at most as many log-probabilities as its last events can repeat", async () => {
  const asked = { input: "Hi", include: ["message.output_text.logprobs"], top_logprobs: 20, stop: ["e"] };
  const refused = await send("/v1/responses", { ...asked, max_output_tokens: 3121 });
  expect(refused.status).toBe(400);
  expect(await refused.text()).toContain("at most 65536 tokens and log-probabilities, given 65541");
  expect((await send("/v1/responses", { ...asked, max_output_tokens: 3120 })).status).toBe(200);
});

describe("lm-evaluation-harness's request", () => {
  it("gets prompt + 1 entries that score a text the same however it is cut into prompt and completion", async () => {
    const { choices } = await complete({
      prompt: PROMPT,
      max_tokens: 8,
      logprobs: 1,
      return_token_ids: true,
      echo: true,
    });
    const whole = choices[0]!.logprobs!;
    const { tokens: promptIds } = (await (await send("/tokenize", { prompt: PROMPT })).json()) as { tokens: number[] };
    const ids = [...promptIds, ...choices[0]!.token_ids];
    expect(whole.token_logprobs).toHaveLength(ids.length);

    const request = { prompt: [ids], max_tokens: 1, logprobs: 1, seed: 1234, echo: true };
    const scored = (await complete(request)).choices[0]!.logprobs!;
    expect(scored.token_logprobs).toHaveLength(ids.length + 1);
    expect(scored.top_logprobs).toHaveLength(ids.length + 1);
    expect(scored.token_logprobs[0]).toBeNull();
    for (const [position, logprob] of whole.token_logprobs.entries()) {
      if (logprob !== null) expect(scored.token_logprobs[position]).toBeCloseTo(logprob, 3);
    }
    // Greedily generated, so each generated token is the argmax, bit for bit in both arrays.
    for (let position = promptIds.length; position < ids.length; position++) {
      expect(scored.token_logprobs[position]).toBe(Math.max(...Object.values(scored.top_logprobs[position]!)));
    }
  });

  it("has an entry for the generated token even if that ends the text", async () => {
    const eos = 2;
    const request = { prompt: [[5, 6, 7]], max_tokens: 1, logprobs: 1, echo: true, logit_bias: { [eos]: 100 } };
    const { choices } = await complete(request);
    expect(choices[0]).toMatchObject({ finish_reason: "stop" });
    expect(choices[0]!.logprobs!.token_logprobs).toHaveLength(4);
  });

  it("gets the prompt alone for max_tokens 0", async () => {
    const { choices } = await complete({ prompt: [[5, 6, 7]], max_tokens: 0, logprobs: 1, echo: true });
    expect(choices[0]!.logprobs!.token_logprobs).toHaveLength(3);
  });
});

it("a stream and an answer without one have the same text for the same seed", async () => {
  const body = { prompt: [PROMPT, "The wolf said"], n: 2, max_tokens: 24, seed: 7, stop: [" the sea"] };
  const whole = await complete({ ...body, temperature: 0.9 });
  const response = await send("/v1/completions", { ...body, temperature: 0.9, stream: true });
  const texts = ["", "", "", ""];
  for (const chunk of sseData(await response.text())) {
    if (chunk === "[DONE]") continue;
    for (const { index, text } of (chunk as { choices: { index: number; text: string }[] }).choices)
      texts[index] += text;
  }
  expect(texts).toEqual(whole.choices.map((choice) => choice.text));
});

it("a session continues where it stopped, without reading its past again", async () => {
  await send("/v1/sessions", { session_id: "tale" });
  const whole = await complete({ prompt: PROMPT, max_tokens: 20 });
  const first = await complete({ prompt: PROMPT, max_tokens: 10, session_id: "tale" });
  const next = " and";
  const second = await complete({ prompt: next, max_tokens: 10, session_id: "tale", add_special_tokens: false });
  const reference = await complete({ prompt: PROMPT + first.choices[0]!.text + next, max_tokens: 10 });
  expect(whole.choices[0]!.text.startsWith(first.choices[0]!.text)).toBe(true);
  expect(second.choices[0]!.text).toBe(reference.choices[0]!.text);
  expect(second.usage.prompt_tokens_details.cached_tokens).toBeGreaterThan(10);
  const session = (await (await fetch(`${url}/v1/sessions/tale`)).json()) as {
    num_tokens: number;
    state_bytes: number;
  };
  expect(session.num_tokens).toBe(second.usage.prompt_tokens + 10);
  expect(session.state_bytes).toBe(first.usage.state_bytes);
});

it("an unstored response can be continued on its WebSocket, and only there", async () => {
  const socket = new WebSocket(`ws://127.0.0.1:${server.port}/v1/responses`);
  const ends: { type: string; response: { id: string; usage: { input_tokens_details: { cached_tokens: number } } } }[] =
    [];
  socket.on("message", (data) => {
    const message = JSON.parse(data.toString());
    if (/completed|incomplete|failed|error/.test(message.type)) ends.push(message);
  });
  await new Promise((resolve) => socket.once("open", resolve));
  const create = { type: "response.create", max_output_tokens: 8, temperature: 0, store: false };
  const { numSnapshots } = server.store.stats();
  socket.send(JSON.stringify({ ...create, input: "Tell me of the sea." }));
  await expect.poll(() => ends.length).toBe(1);
  const { id } = ends[0]!.response;
  socket.send(JSON.stringify({ ...create, input: "And the king?", previous_response_id: id }));
  await expect.poll(() => ends.length).toBe(2);
  expect(ends[1]!.response.usage.input_tokens_details.cached_tokens).toBeGreaterThan(8);
  // A store may be a disk, or another machine.
  expect(server.store.stats().numSnapshots).toBe(numSnapshots);
  expect(server.unstored.stats().numSnapshots).toBe(2);
  socket.close();
  await expect.poll(() => server.unstored.stats().numSnapshots).toBe(0);
  const resume = () => send("/v1/responses", { input: "x", previous_response_id: id, max_output_tokens: 1 });
  await expect.poll(async () => (await resume()).status).toBe(400);
});

it("a client that goes away frees its slots, and a full queue refuses requests until then", async () => {
  const abort = new AbortController();
  const endless = { prompt: PROMPT, max_tokens: 2000, ignore_eos: true, stream: true };
  const streams = await Promise.all([1, 2].map(() => send("/v1/completions", { ...endless, n: 2 }, abort.signal)));
  for (const stream of streams) await stream.body!.getReader().read();
  expect(engine.load.slotsInUse).toBe(4);
  const refused = await send("/v1/completions", { ...endless, prompt: ["a", "b", "c"] });
  expect(refused.status).toBe(429);
  expect(Number(refused.headers.get("retry-after-ms"))).toBeGreaterThan(0);
  abort.abort();
  await expect.poll(() => engine.load).toMatchObject({ slotsInUse: 0, numWaiting: 0 });
});
