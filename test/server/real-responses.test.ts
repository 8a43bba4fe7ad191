/**
 * Responses and sessions over the real generation, engine, runtime and default model: what is gone
 * on from is the same.
 */
import { once } from "node:events";
import { setImmediate } from "node:timers/promises";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { post, type RealServer, startRealServer } from "../helpers/real-server.ts";
import { isEnd, open } from "../helpers/websocket-client.ts";

const ASK = { model: "fake-4m", temperature: 0, max_output_tokens: 8 } as const;

let server: RealServer;
let client: OpenAI;

const clientOf = ({ url }: RealServer) => new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", maxRetries: 0 });

beforeAll(async () => {
  server = await startRealServer();
  client = clientOf(server);
});

afterAll(() => server?.close());

/** Every slot is free, nothing waits, no response is left without an end. */
async function expectIdle(): Promise<void> {
  await expect.poll(() => server.engine.load, { timeout: 5000 }).toMatchObject({ slotsInUse: 0, numWaiting: 0 });
  await expect.poll(() => server.responses.numRunning).toBe(0);
}

describe("a chain of responses", () => {
  it("reads only what is new, and can be continued from any of its responses", async () => {
    const first = await client.responses.create({ ...ASK, input: "Tell me of the sea." });
    const second = await client.responses.create({ ...ASK, input: "And then?", previous_response_id: first.id });
    const third = await client.responses.create({ ...ASK, input: "And the end?", previous_response_id: second.id });
    const again = await client.responses.create({ ...ASK, input: "And then?", previous_response_id: first.id });
    expect(again.output_text).toBe(second.output_text);
    const { input_tokens, input_tokens_details } = third.usage!;
    expect(input_tokens_details.cached_tokens).toBeGreaterThan(second.usage!.input_tokens);
    expect(input_tokens - input_tokens_details.cached_tokens).toBeLessThan(20);
    const inSession = await post(`${server.url}/v1/sessions`, { session_id: "s", previous_response_id: second.id });
    expect(inSession.status).toBe(201);
    const chat = await client.chat.completions.create({
      model: "fake-4m",
      messages: [{ role: "user", content: "And the end?" }],
      temperature: 0,
      max_completion_tokens: 8,
      ...{ session_id: "s" },
    });
    expect(chat.choices[0]!.message.content).toBe(third.output_text);
    await expectIdle();
  });

  it("continues copies of a session, which stays as it is", async () => {
    const first = await client.responses.create({ ...ASK, input: "Tell me of the sea." });
    const second = await client.responses.create({ ...ASK, input: "And then?", previous_response_id: first.id });
    const sessions = `${server.url}/v1/sessions`;
    const created = await post(sessions, { session_id: "sea", previous_response_id: first.id });
    const { num_tokens: numTokens } = (await created.json()) as { num_tokens: number };
    const goOn = async (more: object) => {
      const body = { ...ASK, input: "And then?", previous_session_id: "sea", ...more };
      return (await post(`${server.url}/v1/responses`, body)).json() as Promise<OpenAI.Responses.Response>;
    };
    for (const more of [{}, { store: false }]) {
      // At once: none of them locks it.
      for (const copy of await Promise.all([goOn(more), goOn(more), goOn(more)])) {
        expect(copy.output).toMatchObject([{ content: [{ text: second.output_text }] }]);
        expect(copy.usage!.input_tokens_details.cached_tokens).toBeGreaterThan(numTokens - 3);
      }
    }
    expect(await (await fetch(`${sessions}/sea`)).json()).toMatchObject({ num_tokens: numTokens, busy: false });
    expect(await goOn({ previous_response_id: first.id })).toMatchObject({ error: { param: "previous_session_id" } });
    expect(await goOn({ previous_session_id: "none" })).toMatchObject({ error: { code: "session_not_found" } });
    await expectIdle();
  });

  it("applies the instructions of a response to that response alone", async () => {
    const first = await client.responses.create({ ...ASK, input: "Hello.", instructions: "Speak of the sea only." });
    const second = await client.responses.create({ ...ASK, input: "And then?", previous_response_id: first.id });
    const plain = await client.responses.create({ ...ASK, input: "Hello." });
    const answer = { role: "assistant" as const, content: first.output_text };
    const whole = await client.responses.create({
      ...ASK,
      input: [{ role: "user", content: "Hello." }, answer, { role: "user", content: "And then?" }],
    });
    expect(first.usage!.input_tokens).toBeGreaterThan(plain.usage!.input_tokens);
    expect(second.instructions).toBeNull();
    expect(whole.usage!.input_tokens).toBeLessThanOrEqual(second.usage!.input_tokens);
  });
});

/** What a session says next. */
async function goOn({ url }: RealServer, session_id: string): Promise<string> {
  const body = { prompt: " and", session_id, max_tokens: 12, temperature: 0, add_special_tokens: false };
  const answer = await post(`${url}/v1/completions`, body);
  return ((await answer.json()) as { choices: { text: string }[] }).choices[0]!.text;
}

/** The file of a new session that has said something. */
async function exported({ url }: RealServer): Promise<Uint8Array<ArrayBuffer>> {
  await post(`${url}/v1/sessions`, { session_id: "tale" });
  await post(`${url}/v1/completions`, { prompt: "Once upon a time", session_id: "tale", max_tokens: 8 });
  return new Uint8Array(await (await fetch(`${url}/v1/sessions/tale/export`)).arrayBuffer());
}

function upload({ url }: RealServer, id: string, body: Uint8Array<ArrayBuffer>): Promise<Response> {
  const headers = { "content-type": "application/octet-stream" };
  return fetch(`${url}/v1/sessions/import?session_id=${id}`, { method: "POST", headers, body });
}

async function expectSameAnswers(own: RealServer, file: Uint8Array<ArrayBuffer>): Promise<void> {
  expect((await upload(own, "moved", file)).status).toBe(201);
  await post(`${own.url}/v1/sessions/tale/fork`, { session_id: "forked" });
  const texts = await Promise.all(["tale", "moved", "forked"].map((id) => goOn(own, id)));
  expect(new Set(texts).size).toBe(1);
}

it("an exported and imported session answers as the original does", async () => {
  const file = await exported(server);
  await expectSameAnswers(server, file);

  const flipped = file.slice();
  flipped[Math.floor(flipped.length / 2)]! ^= 1;
  for (const [id, broken] of [
    ["flipped", flipped],
    ["truncated", file.subarray(0, file.length - 1)],
  ] as const) {
    const refused = await upload(server, id, broken);
    expect(refused.status, id).toBe(400);
    expect(await refused.json()).toMatchObject({ error: { code: "invalid_snapshot" } });
  }
  await expectIdle();
});

it("so does one whose state is f16, which a server with states in f32 refuses, and the other way round", async () => {
  const half = await startRealServer({ statePrecision: "f16" });
  try {
    const files = [await exported(half), await exported(server)] as const;
    expect(files[0].length).toBeLessThan(files[1].length);
    await expectSameAnswers(half, files[0]);
    for (const [own, file] of [
      [server, files[0]],
      [half, files[1]],
    ] as const) {
      const refused = await upload(own, "other", file);
      expect(refused.status).toBe(400);
      const message = expect.stringMatching(/made by model .* another --precision or --state-precision/);
      expect(await refused.json()).toMatchObject({ error: { code: "invalid_snapshot", message } });
    }
  } finally {
    await half.close();
  }
  await expectIdle();
});

it("an empty prompt continues a stopped session as if it had not been stopped", async () => {
  const complete = async (body: object) => {
    const settings = { temperature: 1, seed: 5, ignore_eos: true };
    const answer = await post(`${server.url}/v1/completions`, { ...settings, ...body });
    return ((await answer.json()) as { choices: { text: string }[] }).choices[0]!.text;
  };
  await post(`${server.url}/v1/sessions`, { session_id: "stopped" });
  const prompt = "Once upon a time";
  const whole = await complete({ prompt, max_tokens: 24 });
  const first = await complete({ prompt, max_tokens: 10, session_id: "stopped" });
  const rest = await complete({ prompt: "", max_tokens: 14, session_id: "stopped" });
  expect(first + rest).toBe(whole);
});

describe("a response that generates nothing", () => {
  it("reads its input for the response that continues from it", async () => {
    const instructions = "Speak of the sea only.";
    const input = "There was a king who had three ships, and one of them was lost.";
    const [before, ask] = [
      { role: "user" as const, content: input },
      { role: "user" as const, content: "Which?" },
    ];
    const warm = await client.responses.create({ ...ASK, input, instructions, ...{ generate: false } });
    expect(warm).toMatchObject({ status: "completed", output: [], usage: { output_tokens: 0 } });
    const next = { ...ASK, input: [ask], previous_response_id: warm.id, instructions };
    const [once, twice] = [await client.responses.create(next), await client.responses.create(next)];
    const whole = await client.responses.create({ ...ASK, input: [before, ask], instructions });
    expect(once.output_text).toBe(whole.output_text);
    expect(twice.output_text).toBe(whole.output_text);
    expect(once.usage!.input_tokens).toBe(whole.usage!.input_tokens);
    expect(once.usage!.input_tokens_details.cached_tokens).toBeGreaterThanOrEqual(warm.usage!.input_tokens - 1);
    await expectIdle();
  });
});

describe("a turn that is left open", () => {
  // Words that the template closes turns with: <|im_end|>. Each is one token, as "." is.
  it.each(["end", "|", "im"])(
    "over the WebSocket has read %j, and nothing of how the turn is closed",
    async (input) => {
      const chat = await open({ webSocketUrl: `${server.url.replace("http", "ws")}/v1/responses` });
      for (const given of [".", input]) chat.create({ model: "fake-4m", input: given, generate: false });
      const ends = (await chat.until(isEnd, 2)).filter(isEnd) as unknown as { response: { usage: object } }[];
      chat.socket.close();
      const [dot, word] = ends.map(({ response }) => response.usage);
      expect(word).toMatchObject({ input_tokens: (dot as { input_tokens: number }).input_tokens });
      await expectIdle();
    },
  );

  it.each(["", " ", "\n", "|", "im"])("by continue_final_message ends with %j itself", async (content) => {
    const messages = [
      { role: "user", content: "Hi" },
      { role: "assistant", content },
    ];
    const options = { continue_final_message: true, add_generation_prompt: false, return_token_ids: true };
    const chat = await post(`${server.url}/v1/chat/completions`, { messages, ...options, max_tokens: 1 });
    const { prompt_token_ids: tokens } = (await chat.json()) as { prompt_token_ids: number[] };
    const text = await post(`${server.url}/detokenize`, { tokens, skip_special_tokens: false });
    const prompt = `<s><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n${content}`;
    expect(await text.json()).toMatchObject({ prompt });
    await expectIdle();
  });
});

describe("a response that is cancelled", () => {
  it("goes on from what there is of it", async () => {
    const input = "Tell me of the sea.";
    const options = { ...ASK, input, stream: true, max_output_tokens: 1000, ignore_eos: true } as const;
    let id = "";
    for await (const event of await client.responses.create(options)) {
      if (event.type === "response.created") id = event.response.id;
      if (event.type === "response.output_text.delta" && event.sequence_number === 12)
        await client.responses.cancel(id);
    }
    const stopped = await client.responses.retrieve(id);
    expect(stopped.status).toBe("cancelled");
    const next = await client.responses.create({ ...ASK, input: "And then?", previous_response_id: id });
    const { input_tokens, input_tokens_details } = next.usage!;
    expect(input_tokens - input_tokens_details.cached_tokens).toBeLessThan(20);
    const whole = [
      { role: "user", content: input },
      { role: "assistant", content: stopped.output_text },
      { role: "user", content: "And then?" },
    ] as const;
    expect((await client.responses.create({ ...ASK, input: [...whole] })).output_text).toBe(next.output_text);
    await expectIdle();
  });

  it("frees its slot and can be continued", async () => {
    const { id } = await client.responses.create({
      ...ASK,
      input: "Tell me of the sea.",
      max_output_tokens: 2000,
      background: true,
      ...{ ignore_eos: true },
    });
    await expect.poll(() => server.engine.load.slotsInUse).toBe(1);
    expect((await client.responses.cancel(id)).status).toBe("cancelled");
    await expectIdle();
    const next = await client.responses.create({ ...ASK, input: "And then?", previous_response_id: id });
    expect(next.usage!.input_tokens_details.cached_tokens).toBeGreaterThan(0);
  });
});

interface Event {
  type: string;
  sequence_number: number;
  response?: { id: string };
}

const isLast = ({ type }: Event) => /^response\.(completed|incomplete|failed)$/.test(type);

/** Reads some events from a place on, then leaves. */
type ReadSome = (id: string | undefined, startingAfter: number | undefined, numEvents: number) => Promise<Event[]>;

const LONG = { ...ASK, max_output_tokens: 60, temperature: 1 };

const overSse: ReadSome = async (id, starting_after, numEvents) => {
  const place = starting_after === undefined ? {} : { starting_after };
  const stream = await (id === undefined
    ? client.responses.create({ ...LONG, input: "Tell me of the sea.", stream: true, ...{ ignore_eos: true } })
    : client.responses.retrieve(id, { stream: true, ...place }));
  const events: Event[] = [];
  for await (const event of stream) if (events.push(event as unknown as Event) === numEvents) break;
  stream.controller.abort();
  return events;
};

const overWebSocket: ReadSome = async (response_id, starting_after, numEvents) => {
  const socket = new WebSocket(`ws://127.0.0.1:${server.port}/v1/responses`);
  const events: Event[] = [];
  const enough = new Promise<void>((resolve) => {
    socket.on("message", (data) => {
      const event = JSON.parse(data.toString()) as Event;
      if (events.length < numEvents) events.push(event);
      if (events.length === numEvents || isLast(event) || event.type === "error") resolve();
    });
  });
  await once(socket, "open");
  const create = { type: "response.create", ...LONG, input: "Tell me of the sea.", ignore_eos: true };
  socket.send(
    JSON.stringify(response_id === undefined ? create : { type: "response.attach", response_id, starting_after }),
  );
  await enough;
  socket.terminate();
  return events;
};

describe("a second server of the same store", () => {
  let other: RealServer;
  beforeAll(async () => {
    other = await startRealServer({ store: server.store });
  });
  afterAll(() => other?.close());

  it("continues the responses of the first one, and retrieves and replays them unchanged", async () => {
    const clients = [client, clientOf(other)];
    const take = (turn: number, at: OpenAI, previous_response_id: string | null) =>
      at.responses.create({ ...ASK, input: `Part ${turn}, please.`, previous_response_id });
    let last: string | null = null;
    const texts: string[] = [];
    for (let turn = 0; turn < 4; turn++) {
      const made = await take(turn, clients[turn % 2]!, last);
      // The question, the end of the last answer, and what the template writes around them.
      expect(made.usage!.input_tokens - made.usage!.input_tokens_details.cached_tokens).toBeLessThan(30);
      const there = clients[(turn + 1) % 2]!;
      expect({ ...(await there.responses.retrieve(made.id)) }).toEqual({ ...made });
      const replayed = await Promise.all(
        clients.map(async ({ responses }) => {
          const events: unknown[] = [];
          for await (const event of await responses.retrieve(made.id, { stream: true })) events.push(event);
          return events;
        }),
      );
      expect(replayed[1]).toEqual(replayed[0]);
      last = made.id;
      texts.push(made.output_text);
    }
    const alone: string[] = [];
    last = null;
    for (let turn = 0; turn < 4; turn++) {
      const made = await take(turn, client, last);
      last = made.id;
      alone.push(made.output_text);
    }
    expect(texts).toEqual(alone);
  });

  it("shows a running response of the first one, and refuses to cancel it", async () => {
    const long = { ...ASK, max_output_tokens: 2000, background: true, ...{ ignore_eos: true } };
    const { id } = await client.responses.create({ ...long, input: "Tell me of the sea." });
    const there = clientOf(other).responses;
    expect(["queued", "in_progress"]).toContain((await there.retrieve(id)).status);
    await expect(there.cancel(id)).rejects.toMatchObject({ status: 409, code: "response_busy" });
    await client.responses.cancel(id);
    expect((await there.retrieve(id)).status).toBe("cancelled");
    expect((await there.cancel(id)).status).toBe("cancelled");
    await there.delete(id);
    await expect(client.responses.retrieve(id)).rejects.toMatchObject({ status: 404 });
    await expectIdle();
  });
});

describe("many clients at once that lose their connections at random", () => {
  it("miss nothing and get nothing twice, and every slot is free afterwards", { timeout: 120_000 }, async () => {
    let seed = 7;
    const random = (below: number) => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      return Math.floor((seed / 2 ** 32) * below);
    };
    const readWhole = async (): Promise<Event[]> => {
      const events: Event[] = [];
      while (events.length === 0 || !isLast(events.at(-1)!)) {
        const read = random(2) === 0 ? overSse : overWebSocket;
        const last = events.at(-1)?.sequence_number;
        events.push(...(await read(events[0]?.response?.id, last, 1 + random(25))));
        for (let turns = random(100); turns > 0; turns--) await setImmediate();
      }
      return events;
    };
    const all = await Promise.all(Array.from({ length: 8 }, readWhole));
    for (const events of all) {
      expect(events.map(({ sequence_number }) => sequence_number)).toEqual([...events.keys()]);
      expect(await overSse(events[0]!.response!.id, undefined, 1000)).toEqual(events);
    }
    await expectIdle();
  });
});
