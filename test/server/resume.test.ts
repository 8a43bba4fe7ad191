/**
 * Streams that are resumed after their connection was lost: no event is lost or repeated.
 */
import { once } from "node:events";
import { request as httpRequest } from "node:http";
import { setImmediate } from "node:timers/promises";
import OpenAI from "openai";
import { describe, expect, it, vi } from "vitest";
import type { ServerOptions } from "../../src/server/deps.ts";
import { gate, pauseAt } from "../helpers/gate.ts";
import { type ListeningServer, startTestServer } from "../helpers/listening-server.ts";
import { DEFAULT_SERVER_OPTIONS, FAKE_MODEL, runtimeFault, sseData } from "../helpers/server-deps.ts";
import { type Client, isEnd, type Message, open } from "../helpers/websocket-client.ts";

const REPLY = Array.from({ length: 20 }, (_, index) => ` word${index}`);
const body = { model: FAKE_MODEL, input: "Hi" };

const clientOf = (server: ListeningServer) =>
  new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "unused", maxRetries: 0 });

const resume = (changes: Partial<ServerOptions["resume"]>) => ({
  resume: { ...DEFAULT_SERVER_OPTIONS.resume, ...changes },
});

const numberOf = ({ sequence_number }: Message) => sequence_number as number;

/**
 * The value once it has stopped changing: the fake generator waits a turn of the event loop for
 * each delta.
 */
async function lastValue(value: () => number): Promise<number> {
  for (let last = Number.NaN, turns = 0; ; ) {
    turns = value() === last ? turns + 1 : 0;
    last = value();
    if (turns === 100) return last;
    await setImmediate();
  }
}

async function expectIdle(server: ListeningServer): Promise<void> {
  await expect.poll(() => server.responses.numRunning).toBe(0);
  expect(server.generator.numRunning).toBe(0);
}

/**
 * Reads a new stream until its event of this number, and loses the connection, which the server has
 * noticed.
 */
async function readUntil(server: ListeningServer, last: number, settings: object = {}): Promise<Message[]> {
  const numLogged = () => server.logLines.filter(({ message }) => message === "request").length;
  const numBefore = numLogged();
  const stream = await clientOf(server).responses.create({ ...body, ...settings, stream: true });
  const events: Message[] = [];
  for await (const event of stream) {
    events.push(event as unknown as Message);
    if (event.sequence_number === last) break;
  }
  stream.controller.abort();
  await expect.poll(numLogged).toBe(numBefore + 1);
  return events;
}

const idOf = (events: readonly Message[]) => (events[0]!.response as { id: string }).id;

/** The rest of a response, read by OpenAI's client. */
async function readOn(server: ListeningServer, id: string, startingAfter?: number): Promise<Message[]> {
  return (await subscribe(server, id, startingAfter))();
}

/** Resolves when the server has answered. @returns reads the events */
async function subscribe(
  server: ListeningServer,
  id: string,
  startingAfter?: number,
): Promise<() => Promise<Message[]>> {
  const query = { stream: true, ...(startingAfter === undefined ? {} : { starting_after: startingAfter }) } as const;
  const stream = await clientOf(server).responses.retrieve(id, query);
  return async () => {
    const events: Message[] = [];
    for await (const event of stream) events.push(event as unknown as Message);
    return events;
  };
}

function expectWhole(events: readonly Message[], reply: readonly string[] = REPLY): void {
  expect(events.map(numberOf)).toEqual([...events.keys()]);
  const deltas = events.filter(({ type }) => type === "response.output_text.delta").map(({ delta }) => delta);
  expect(deltas).toEqual(reply);
  expect(events.at(-1)).toMatchObject({ type: "response.completed", response: { status: "completed" } });
}

describe("a lost stream", () => {
  it.each([0, 1, 3, 7, 23])(
    "lost after event %i, continues with the next one while the response runs",
    async (last) => {
      await using server = await startTestServer();
      const held = gate();
      server.generator.script = { reply: REPLY, pace: pauseAt(last, held) };
      const seen = await readUntil(server, last);
      const readRest = await subscribe(server, idOf(seen), last);
      held.release();
      expectWhole([...seen, ...(await readRest())]);
      expect(server.generator.numAborted).toBe(0);
      await expectIdle(server);
    },
  );

  it("is replayed unchanged after the end of the response, from any event", async () => {
    await using server = await startTestServer();
    server.generator.script = { reply: REPLY };
    const seen = await readUntil(server, 100);
    expectWhole(seen);
    for (let last = 0; last < seen.length; last++) {
      expect(await readOn(server, idOf(seen), last)).toEqual(seen.slice(last + 1));
    }
    expect(await readOn(server, idOf(seen))).toEqual(seen);
  });

  it("is replayed with its log-probabilities and its failure", async () => {
    await using server = await startTestServer();
    const include = ["message.output_text.logprobs"];
    const logprobs = await readUntil(server, 100, { include, top_logprobs: 2 });
    expect(logprobs.find(({ type }) => type === "response.output_text.delta")!.logprobs).toHaveLength(1);
    expect(await readOn(server, idOf(logprobs))).toEqual(logprobs);
    server.generator.script = { reply: REPLY, failure: { afterDeltas: 2, error: runtimeFault() } };
    const failed = await readUntil(server, 100);
    expect(failed.at(-1)!.type).toBe("response.failed");
    expect(await readOn(server, idOf(failed), 3)).toEqual(failed.slice(4));
  });

  it("can be read by several clients at once", async () => {
    await using server = await startTestServer();
    const held = gate();
    server.generator.script = { reply: REPLY, pace: pauseAt(5, held) };
    const seen = await readUntil(server, 6);
    const readers = await Promise.all([undefined, 0, 3, 6].map((last) => subscribe(server, idOf(seen), last)));
    held.release();
    const [whole, ...parts] = await Promise.all(readers.map((read) => read()));
    expectWhole(whole!);
    expect(parts).toEqual([1, 4, 7].map((from) => whole!.slice(from)));
  });

  it("is resumed by OpenAI's stream helper", async () => {
    await using server = await startTestServer();
    const held = gate();
    server.generator.script = { reply: REPLY, pace: pauseAt(5, held) };
    const seen = await readUntil(server, 6);
    const helper = clientOf(server).responses.stream({ response_id: idOf(seen), starting_after: 6 });
    const numbers: number[] = [];
    helper.on("event", (event) => numbers.push(event.sequence_number));
    helper.on("connect", held.release);
    const final = await helper.finalResponse();
    expect(final.output_text).toBe(REPLY.join(""));
    expect(numbers[0]).toBe(7);
  });

  it("is resumed by a browser's EventSource, which gets a 204 at the end", async () => {
    await using server = await startTestServer();
    server.generator.script = { reply: REPLY };
    const seen = await readUntil(server, 100);
    const url = `${server.url}/v1/responses/${idOf(seen)}?stream=true&starting_after=2`;
    const back = await fetch(url, { headers: { "last-event-id": "10" } });
    const text = await back.text();
    expect(sseData(text)).toEqual(seen.slice(11));
    expect([...text.matchAll(/^id: (\d+)$/gm)].map(([, id]) => Number(id))).toEqual(seen.slice(11).map(numberOf));
    const last = seen.length - 1;
    expect((await fetch(url, { headers: { "last-event-id": String(last) } })).status).toBe(204);
    expect(await (await fetch(`${url.split("?")[0]}?stream=true&starting_after=${last}`)).text()).toBe("");
  });
});

describe("a response that lost its last client", () => {
  it("is cancelled if no client returns in time, and stored up to that point", async () => {
    await using server = await startTestServer(resume({ waitMs: 40 }));
    server.generator.script = { reply: REPLY, pace: pauseAt(5, gate()) };
    const seen = await readUntil(server, 6);
    await expectIdle(server);
    expect(server.generator.numAborted).toBe(1);
    const kept = await clientOf(server).responses.retrieve(idOf(seen));
    expect(kept).toMatchObject({ status: "cancelled", output_text: REPLY.slice(0, 5).join("") });
    expect([...seen, ...(await readOn(server, idOf(seen), 6))].at(-1)!.type).toBe("response.incomplete");
  });

  it("gets the whole time again when a client has returned", async () => {
    await using server = await startTestServer(resume({ waitMs: 15_000 }));
    const held = gate();
    server.generator.script = { reply: REPLY, pace: pauseAt(5, held) };
    using _real = { [Symbol.dispose]: () => vi.useRealTimers() };
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const seen = await readUntil(server, 6);
    for (let round = 0; round < 4; round++) {
      await expect.poll(() => vi.getTimerCount()).toBeGreaterThan(0);
      vi.advanceTimersByTime(14_000);
      const abort = new AbortController();
      const url = `${server.url}/v1/responses/${idOf(seen)}?stream=true`;
      await (await fetch(url, { signal: abort.signal })).body!.getReader().read();
      abort.abort();
    }
    held.release();
    expectWhole([...seen, ...(await readOn(server, idOf(seen), 6))]);
  });

  it("is paused once too much text waits, and resumes when a client comes", async () => {
    await using server = await startTestServer(resume({ waitBytes: 40 }));
    const reply = Array.from({ length: 400 }, (_, index) => ` word${index}`);
    let numMade = 0;
    const held = gate();
    server.generator.script = {
      reply,
      pace: async (index, signal) => {
        await pauseAt(1, held)(index, signal);
        numMade = index;
      },
    };
    const seen = await readUntil(server, 4);
    held.release();
    await expect.poll(() => numMade).toBeGreaterThan(5);
    expect(await lastValue(() => numMade)).toBeLessThan(reply.length - 1);
    expectWhole([...seen, ...(await readOn(server, idOf(seen), 4))], reply);
  });

  it("is not paused for a client that does not read while another one does", async () => {
    await using server = await startTestServer();
    const reply = Array.from({ length: 200 }, () => "x".repeat(32 * 1024));
    server.generator.script = { reply };
    const seen = await readUntil(server, 4);
    const stuck = httpRequest(`${server.url}/v1/responses/${idOf(seen)}?stream=true`);
    stuck.on("error", () => {});
    const responded = once(stuck, "response");
    stuck.end();
    const [response] = await responded;
    response.pause();
    const rest = await (await fetch(`${server.url}/v1/responses/${idOf(seen)}?stream=true`)).text();
    expect(rest).toContain("event: response.completed");
    stuck.destroy();
    await expectIdle(server);
  });

  it("ends at once if it is not stored, or if its client only waited for the end", async () => {
    await using server = await startTestServer();
    server.generator.script = { reply: REPLY, pace: pauseAt(1, gate()) };
    await readUntil(server, 4, { store: false });
    await expectIdle(server);
    const abort = new AbortController();
    const whole = clientOf(server).responses.create(body, { signal: abort.signal });
    await expect.poll(() => server.responses.numRunning).toBe(1);
    abort.abort();
    await expect(whole).rejects.toThrow();
    await expectIdle(server);
    expect(server.generator.numAborted).toBe(2);
  });

  it("is ended and stored before the server has closed", async () => {
    const server = await startTestServer();
    server.generator.script = { reply: REPLY, pace: pauseAt(5, gate()) };
    const seen = await readUntil(server, 6);
    await server.listener.close(30);
    expect(server.responses.numRunning).toBe(0);
    expect(server.logLines.filter(({ level }) => level === "error")).toEqual([]);
    await using next = await startTestServer();
    for (const [key, record] of server.generator.conversations.records) {
      next.generator.conversations.records.set(key, record);
    }
    expect(await clientOf(next).responses.retrieve(idOf(seen))).toMatchObject({
      status: "failed",
      error: { message: "the server was shut down before the response was finished" },
      output_text: REPLY.slice(0, 5).join(""),
    });
  });
});

describe("chat and completions", () => {
  it.each([
    ["/v1/completions", { prompt: "a", max_tokens: 100 }],
    ["/v1/chat/completions", { messages: [{ role: "user", content: "a" }] }],
  ])("are cancelled when their client leaves: %s", async (path, request) => {
    await using server = await startTestServer();
    server.generator.script = { reply: REPLY, pace: pauseAt(2, gate()) };
    const abort = new AbortController();
    const response = await fetch(server.url + path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ ...request, stream: true }),
      signal: abort.signal,
    });
    await response.body!.getReader().read();
    abort.abort();
    await expect.poll(() => server.generator.numAborted).toBe(1);
    await expectIdle(server);
  });
});

describe("starting_after", () => {
  it.each([
    [
      "stream=true&starting_after=-1",
      "starting_after must be the sequence_number of an event, an integer from 0; got -1",
    ],
    [
      "stream=true&starting_after=1.5",
      "starting_after must be the sequence_number of an event, an integer from 0; got 1.5",
    ],
    [
      "stream=true&starting_after=x",
      'starting_after must be the sequence_number of an event, an integer from 0; got "x"',
    ],
    [
      "stream=true&starting_after=",
      'starting_after must be the sequence_number of an event, an integer from 0; got ""',
    ],
    ["stream=true&starting_after=28", "starting_after must be at most 27, the response's last event so far; got 28"],
    ["starting_after=1", "starting_after is only allowed when stream is true"],
    ["stream=yes", 'stream must be "true" or "false"; got "yes"'],
  ])("%s is refused", async (query, message) => {
    await using server = await startTestServer();
    server.generator.script = { reply: REPLY };
    const seen = await readUntil(server, 100);
    expect(seen).toHaveLength(28);
    const response = await fetch(`${server.url}/v1/responses/${idOf(seen)}?${query}`);
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ error: { message, code: "invalid_value" } });
  });

  it("beyond the events so far is refused, and does not disturb the response", async () => {
    await using server = await startTestServer(resume({ waitMs: 5000 }));
    const held = gate();
    server.generator.script = { reply: REPLY, pace: pauseAt(2, held) };
    const seen = await readUntil(server, 5);
    await expect(readOn(server, idOf(seen), 6)).rejects.toMatchObject({ status: 400, param: "starting_after" });
    held.release();
    expectWhole([...seen, ...(await readOn(server, idOf(seen), 5))]);
  });
});

describe("many responses in a row", () => {
  it("leave no listener and no timer, over either transport", async () => {
    const warnings: Error[] = [];
    const onWarning = (warning: Error) => warnings.push(warning);
    process.on("warning", onWarning);
    {
      await using server = await startTestServer();
      const client = await open(server);
      for (let n = 0; n < 30; n++) client.create({ store: n % 2 === 0 });
      await client.until(isEnd, 30);
      const id = client.responseIds[0]!;
      for (let n = 0; n < 30; n++) client.send({ type: "response.attach", response_id: id });
      await client.until(isEnd, 60);
      const numTimers = process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
      for (let n = 0; n < 15; n++) await readUntil(server, 2);
      await expectIdle(server);
      const numTimersNow = process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
      expect(numTimersNow).toBeLessThan(numTimers + 5);
      client.socket.close();
    }
    process.off("warning", onWarning);
    expect(warnings).toEqual([]);
  });
});

describe("on the WebSocket", () => {
  const attach = (client: Client, responseId: string, settings: object = {}) =>
    client.send({ type: "response.attach", response_id: responseId, ...settings });

  it("a response that lost its connection is attached to on another one", async () => {
    await using server = await startTestServer();
    const held = gate();
    server.generator.script = { reply: REPLY, pace: pauseAt(5, held) };
    const first = await open(server);
    first.create({ stream_id: "a" });
    const seen = [...(await first.until(({ sequence_number }) => sequence_number === 8))];
    first.socket.terminate();
    const second = await open(server);
    attach(second, first.responseIds[0]!, { starting_after: 8, stream_id: "b" });
    await second.handled();
    held.release();
    const rest = await second.until(isEnd);
    expect(rest.every(({ stream_id }) => stream_id === "b")).toBe(true);
    expectWhole([...seen, ...rest]);
    second.socket.close();
    await expectIdle(server);
  });

  it("a response that began over SSE is attached to, and the other way round", async () => {
    await using server = await startTestServer();
    const held = gate();
    server.generator.script = { reply: REPLY, pace: pauseAt(5, held) };
    const seen = await readUntil(server, 6);
    const client = await open(server);
    attach(client, idOf(seen));
    client.create({ stream_id: "own" });
    await client.until(({ stream_id, sequence_number }) => stream_id === "own" && sequence_number === 6);
    const overSse = readOn(server, client.responseIds[1]!);
    held.release();
    const messages = await client.until(isEnd, 2);
    expectWhole(messages.filter(({ stream_id }) => stream_id === undefined));
    expectWhole(await overSse);
    client.socket.close();
  });

  it("an ended response is replayed in its turn, which can be cancelled", async () => {
    await using server = await startTestServer();
    server.generator.script = { reply: REPLY };
    const client = await open(server);
    client.create({ stream_id: "a" });
    await client.until(isEnd);
    const made = [...client.messages];
    attach(client, client.responseIds[0]!, { stream_id: "a" });
    await client.until(isEnd, 2);
    expect(client.messages.slice(made.length)).toEqual(made);
    attach(client, client.responseIds[0]!, { starting_after: 28 });
    await client.until(({ type }) => type === "error");
    expect(client.messages.at(-1)).toMatchObject({
      status: 400,
      error: { message: "starting_after must be at most 27, the response's last event so far; got 28" },
    });
    attach(client, client.responseIds[0]!, { starting_after: 26 });
    await client.until(isEnd, 4);
    expect(client.messages.at(-1)).toMatchObject({ type: "response.completed", sequence_number: 27 });

    server.generator.script = { reply: REPLY, pace: pauseAt(3, gate()) };
    const running = await readUntil(server, 5);
    attach(client, idOf(running));
    await client.until(({ stream_id, sequence_number }) => stream_id === undefined && sequence_number === 5);
    client.send({ type: "response.cancel", response_id: idOf(running) });
    await client.until(({ type }) => type === "response.incomplete");
    client.socket.close();
    await expectIdle(server);
  });

  it.each<[name: string, message: object, status: number, error: object]>([
    ["an unknown response", { response_id: "resp_x" }, 404, { code: "response_not_found", param: "response_id" }],
    ["no response", {}, 400, { code: "invalid_value", param: "response_id" }],
    ["a negative place", { response_id: "resp_x", starting_after: -1 }, 400, { param: "starting_after" }],
    ["a fractional place", { response_id: "resp_x", starting_after: 0.5 }, 400, { param: "starting_after" }],
    ["a place that is text", { response_id: "resp_x", starting_after: "1" }, 400, { param: "starting_after" }],
    ["something that is no response", { response_id: 5 }, 400, { code: "invalid_value", param: "response_id" }],
  ])("attaching to %s is refused, and the connection stays open", async (_name, message, status, error) => {
    await using server = await startTestServer();
    const client = await open(server);
    client.send({ type: "response.attach", stream_id: "a", ...message });
    client.create();
    const ends = (await client.until(isEnd, 2)).filter(isEnd);
    expect(ends).toMatchObject([{ type: "error", status, stream_id: "a", error }, { type: "response.completed" }]);
    client.socket.close();
  });
});
