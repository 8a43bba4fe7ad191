/**
 * The Responses API beyond making one: retrieved, listed, deleted, cancelled, run in the
 * background; mostly by OpenAI's client.
 */
import OpenAI from "openai";
import { describe, expect, it } from "vitest";
import { DenseMambaError } from "../../src/errors.ts";
import type { ServerOptions } from "../../src/server/deps.ts";
import { gate, pauseAt } from "../helpers/gate.ts";
import { type ListeningServer, startTestServer } from "../helpers/listening-server.ts";
import { DEFAULT_SERVER_OPTIONS, FAKE_MODEL, NOW_MS, runtimeFault } from "../helpers/server-deps.ts";
import { isEnd, open } from "../helpers/websocket-client.ts";

const REPLY = ["Once", " upon", " a", " time"];

const clientOf = (server: ListeningServer, apiKey = "unused") =>
  new OpenAI({ baseURL: `${server.url}/v1`, apiKey, maxRetries: 0 });

const resume = (changes: Partial<ServerOptions["resume"]>) => ({
  resume: { ...DEFAULT_SERVER_OPTIONS.resume, ...changes },
});

/** Nothing runs on, and no generation was left without an end. */
async function expectIdle(server: ListeningServer): Promise<void> {
  await expect.poll(() => server.responses.numRunning).toBe(0);
  expect(server.generator.numRunning).toBe(0);
}

/** What the observer was told of responses that nobody reads. */
function unattendedOf({ observed }: Pick<ListeningServer, "observed">): unknown[] {
  return observed
    .flatMap((told) => Object.entries(Object(told)))
    .flatMap(([name, by]) => (name === "unattended" ? [by] : []));
}

const body = { model: FAKE_MODEL, input: "Hi" };

describe("a stored response", () => {
  it("is retrieved unchanged", async () => {
    await using server = await startTestServer();
    const client = clientOf(server);
    for (const settings of [{}, { max_output_tokens: 2, metadata: { a: "b" }, instructions: "Be brief." }]) {
      const made = await client.responses.create({ ...body, ...settings });
      const retrieved = await client.responses.retrieve(made.id);
      expect({ ...retrieved }).toEqual({ ...made });
    }
    await expectIdle(server);
  });

  it("does not pass on its instructions and metadata", async () => {
    await using server = await startTestServer();
    const client = clientOf(server);
    const first = await client.responses.create({ ...body, instructions: "Be brief.", metadata: { a: "b" } });
    const second = await client.responses.create({ ...body, previous_response_id: first.id });
    expect(second).toMatchObject({ instructions: null, metadata: {}, previous_response_id: first.id });
    expect(server.generator.requests[1]!.prompts[0]).not.toHaveProperty("instructions");
  });

  it("can be continued any number of times, even from the middle of a chain", async () => {
    await using server = await startTestServer();
    const client = clientOf(server);
    const first = await client.responses.create(body);
    const second = await client.responses.create({ ...body, previous_response_id: first.id });
    const forks = await Promise.all(
      [first, first, second].map(({ id }) => client.responses.create({ ...body, previous_response_id: id })),
    );
    const cached = forks.map(({ usage }) => usage!.input_tokens_details.cached_tokens);
    expect(cached[0]).toBe(cached[1]);
    expect(cached[2]).toBeGreaterThan(cached[1]!);
  });

  it("is deleted with its state", async () => {
    await using server = await startTestServer();
    const client = clientOf(server);
    const { id } = await client.responses.create(body);
    await client.responses.delete(id);
    await expect(client.responses.retrieve(id)).rejects.toMatchObject({ status: 404, code: "response_not_found" });
    await expect(client.responses.delete(id)).rejects.toBeInstanceOf(OpenAI.NotFoundError);
    await expect(client.responses.create({ ...body, previous_response_id: id })).rejects.toMatchObject({
      code: "previous_response_not_found",
    });
    const answered = await client.responses.create(body);
    const raw = await fetch(`${server.url}/v1/responses/${answered.id}`, { method: "DELETE" });
    expect(await raw.json()).toEqual({ id: answered.id, object: "response", deleted: true });
  });

  it("lists its own input unchanged, in pages", async () => {
    await using server = await startTestServer();
    const client = clientOf(server);
    const roles = ["developer", "user", "assistant", "user", "user"] as const;
    const input = roles.map((role, index) => ({ role, content: `text ${index}` }));
    const { id } = await client.responses.create({ ...body, input });
    const listed: unknown[] = [];
    for await (const item of client.responses.inputItems.list(id, { order: "asc", limit: 2 })) listed.push(item);
    expect(listed).toMatchObject(
      roles.map((role, index) => ({
        type: "message",
        role,
        content: [{ type: role === "assistant" ? "output_text" : "input_text", text: `text ${index}` }],
      })),
    );
    const page = await client.responses.inputItems.list(id);
    expect(page.data).toEqual(listed.toReversed());
    expect(page.has_more).toBe(false);

    const parts = [
      { type: "input_text" as const, text: "a" },
      { type: "input_text" as const, text: "b" },
    ];
    const other = await client.responses.create({ ...body, input: [{ role: "user", content: parts }] });
    expect((await client.responses.inputItems.list(other.id)).data).toMatchObject([{ content: parts }]);
  });

  it.each([
    ["limit=0", "limit must be at least 1; got 0"],
    ["limit=101", "limit must be at most 100; got 101"],
    ["limit=2.5", "limit must be an integer; got 2.5"],
    ["limit=x", 'limit must be a number; got "x"'],
    ["order=up", 'order must be one of "asc", "desc"; got "up"'],
    ["after=msg_x", 'after must be the id of an item here; got "msg_x"'],
  ])("refuses %s of its input", async (query, message) => {
    await using server = await startTestServer();
    const { id } = await clientOf(server).responses.create(body);
    const response = await fetch(`${server.url}/v1/responses/${id}/input_items?${query}`);
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ error: { message } });
  });

  it("ends only once it is stored, and fails if it can't be", async () => {
    await using server = await startTestServer();
    server.generator.conversations.refusal = new DenseMambaError("quota_exceeded", "at most 1; got 2");
    const client = clientOf(server);
    await expect(client.responses.create(body)).rejects.toMatchObject({ status: 403, code: "quota_exceeded" });
    const types: string[] = [];
    for await (const event of await client.responses.create({ ...body, stream: true })) types.push(event.type);
    expect(types.at(-1)).toBe("response.failed");
    await expectIdle(server);
  });

  it("that does not fit into the store is answered with store: false, and is not found", async () => {
    await using server = await startTestServer();
    server.generator.conversations.refusal = new DenseMambaError("store_unavailable", "the disk is full");
    const client = clientOf(server);
    const answered = await client.responses.create(body);
    expect(answered).toMatchObject({ status: "completed", store: false });
    const stored: unknown[] = [];
    for await (const event of await client.responses.create({ ...body, stream: true })) {
      if ("response" in event) stored.push([event.type, (event.response as { store?: boolean }).store]);
    }
    expect(stored[0]).toEqual(["response.created", true]);
    expect(stored.at(-1)).toEqual(["response.completed", false]);
    await expect(client.responses.retrieve(answered.id)).rejects.toMatchObject({ status: 404 });
    await expect(client.responses.create({ ...body, background: true })).rejects.toMatchObject({ status: 503 });
    await expectIdle(server);
  });

  it("that failed is stored as failed", async () => {
    await using server = await startTestServer();
    server.generator.script = { reply: REPLY, failure: { afterDeltas: 2, error: runtimeFault() } };
    const client = clientOf(server);
    let id = "";
    for await (const event of await client.responses.create({ ...body, stream: true })) {
      if (event.type === "response.created") id = event.response.id;
    }
    expect(await client.responses.retrieve(id)).toMatchObject({
      status: "failed",
      error: { code: "server_error", message: "the runtime failed: injected" },
      output_text: "Once upon",
    });
  });
});

describe("a response that is not stored", () => {
  it("can't be retrieved, not even while it runs", async () => {
    await using server = await startTestServer();
    const client = clientOf(server);
    const held = gate();
    server.generator.script = { reply: REPLY, pace: pauseAt(1, held) };
    const stream = await client.responses.create({ ...body, store: false, stream: true });
    let id = "";
    for await (const event of stream) {
      if (event.type === "response.created") {
        id = event.response.id;
        await expect(client.responses.retrieve(id)).rejects.toBeInstanceOf(OpenAI.NotFoundError);
        await expect(client.responses.cancel(id)).rejects.toBeInstanceOf(OpenAI.NotFoundError);
        held.release();
      }
    }
    await expect(client.responses.retrieve(id)).rejects.toBeInstanceOf(OpenAI.NotFoundError);
    expect(server.generator.conversations.records.size).toBe(0);
  });
});

describe("a response in the background", () => {
  it("is answered at once, and can be retrieved until it ends", async () => {
    await using server = await startTestServer();
    const client = clientOf(server);
    const held = gate();
    server.generator.script = { reply: REPLY, pace: pauseAt(2, held) };
    const queued = await client.responses.create({ ...body, background: true });
    expect(queued).toMatchObject({ status: "queued", background: true, output: [] });
    await expect.poll(() => unattendedOf(server)).toEqual([1]);
    await expect
      .poll(() => client.responses.retrieve(queued.id))
      .toMatchObject({ status: "in_progress", output_text: "Once upon" });
    held.release();
    await expect
      .poll(() => client.responses.retrieve(queued.id))
      .toMatchObject({ status: "completed", output_text: "Once upon a time" });
    await expectIdle(server);
    expect(unattendedOf(server)).toEqual([1, -1]);
  });

  it("needs to be stored", async () => {
    await using server = await startTestServer();
    await expect(clientOf(server).responses.create({ ...body, background: true, store: false })).rejects.toMatchObject({
      status: 400,
      param: "background",
      message: expect.stringContaining("background needs store to be true"),
    });
  });

  it("is refused with the same status as any other", async () => {
    await using server = await startTestServer();
    server.generator.script = { reply: [], refusal: new DenseMambaError("queue_full", "full") };
    const refused = clientOf(server).responses.create({ ...body, background: true });
    await expect(refused).rejects.toBeInstanceOf(OpenAI.RateLimitError);
    server.generator.script = { reply: REPLY };
    server.generator.conversations.refusal = new DenseMambaError("quota_exceeded", "at most 1; got 2");
    const unkept = clientOf(server).responses.create({ ...body, background: true });
    await expect(unkept).rejects.toMatchObject({ status: 403, code: "quota_exceeded" });
    await expectIdle(server);
  });

  it("runs on when the client that streams it leaves", async () => {
    await using server = await startTestServer(resume({ waitMs: 0, waitBytes: 0 }));
    const client = clientOf(server);
    const held = gate();
    server.generator.script = { reply: REPLY, pace: pauseAt(1, held) };
    const stream = await client.responses.create({ ...body, background: true, stream: true });
    let id = "";
    for await (const event of stream) {
      if (event.type === "response.created") id = event.response.id;
      if (event.type === "response.output_text.delta") break;
    }
    stream.controller.abort();
    held.release();
    await expect.poll(() => client.responses.retrieve(id)).toMatchObject({ status: "completed" });
    expect(server.generator.numAborted).toBe(0);
  });

  it("has a time limit", async () => {
    await using server = await startTestServer(resume({ backgroundMs: 30 }));
    const client = clientOf(server);
    server.generator.script = { reply: REPLY, pace: pauseAt(1, gate()) };
    const { id } = await client.responses.create({ ...body, background: true });
    await expect
      .poll(() => client.responses.retrieve(id))
      .toMatchObject({
        status: "failed",
        error: { message: "the response was not finished within 30 ms" },
        output_text: "Once",
      });
    await expectIdle(server);
  });

  it("of a server that went away is known to the next one, and has failed after its time limit", async () => {
    await using server = await startTestServer();
    const client = clientOf(server);
    server.generator.script = { reply: REPLY, pace: pauseAt(0, gate()) };
    const { id } = await client.responses.create({ ...body, background: true });
    await using next = await startTestServer();
    for (const [key, record] of server.generator.conversations.records) {
      next.generator.conversations.records.set(key, record);
    }
    const other = clientOf(next);
    expect(await other.responses.retrieve(id)).toMatchObject({ status: "queued" });
    await expect(other.responses.cancel(id)).rejects.toMatchObject({ status: 409, code: "response_busy" });
    await expect(other.responses.delete(id)).rejects.toMatchObject({ status: 409, code: "response_busy" });
    await expect(other.responses.retrieve(id, { stream: true })).rejects.toMatchObject({ status: 409 });

    next.clock.nowMs = NOW_MS + DEFAULT_SERVER_OPTIONS.resume.backgroundMs + 1;
    expect(await other.responses.retrieve(id)).toMatchObject({
      status: "failed",
      error: { message: "the server that made the response went away before its end" },
    });
    await other.responses.delete(id);
    await client.responses.cancel(id);
    await expectIdle(server);
  });
});

describe("cancelling", () => {
  it("ends a response and returns it; cancelling twice returns the same", async () => {
    await using server = await startTestServer();
    const client = clientOf(server);
    server.generator.script = { reply: REPLY, pace: pauseAt(2, gate()) };
    const { id } = await client.responses.create({ ...body, background: true });
    await expect.poll(() => client.responses.retrieve(id)).toMatchObject({ output_text: "Once upon" });
    const cancelled = await client.responses.cancel(id);
    expect(cancelled).toMatchObject({ id, status: "cancelled", output: [{ content: [{ text: "Once upon" }] }] });
    expect(await client.responses.cancel(id)).toEqual(cancelled);
    expect(await client.responses.retrieve(id)).toMatchObject({ ...cancelled });
    expect(server.generator.numAborted).toBe(1);
    await expectIdle(server);
  });

  it("ends a response whose client waits for its end", async () => {
    await using server = await startTestServer();
    const client = clientOf(server);
    server.generator.script = { reply: REPLY, pace: pauseAt(1, gate()) };
    const whole = client.responses.create(body);
    await expect.poll(() => server.responses.numRunning).toBe(1);
    await client.responses.cancel("resp_00000002");
    expect(await whole).toMatchObject({ status: "cancelled", output_text: "Once" });
  });

  it("an ended response is refused", async () => {
    await using server = await startTestServer();
    const client = clientOf(server);
    const { id } = await client.responses.create(body);
    await expect(client.responses.cancel(id)).rejects.toMatchObject({
      status: 400,
      message: expect.stringContaining(`response_id must name a response that is running; "${id}" is completed`),
    });
  });
});

describe("deleting a running response", () => {
  it("is a conflict, and the response runs on", async () => {
    await using server = await startTestServer();
    const client = clientOf(server);
    const held = gate();
    server.generator.script = { reply: REPLY, pace: pauseAt(1, held) };
    const { id } = await client.responses.create({ ...body, background: true });
    await expect(client.responses.delete(id)).rejects.toMatchObject({ status: 409, code: "response_busy" });
    held.release();
    await expect.poll(() => client.responses.retrieve(id)).toMatchObject({ status: "completed" });
    await client.responses.delete(id);
    await expectIdle(server);
  });
});

describe("another key's response", () => {
  it("does not exist", async () => {
    await using server = await startTestServer({ apiKeys: ["mine", "theirs"] });
    const [mine, theirs] = [clientOf(server, "mine"), clientOf(server, "theirs")];
    const { id } = await mine.responses.create(body);
    server.generator.script = { reply: REPLY, pace: pauseAt(1, gate()) };
    const running = await mine.responses.create({ ...body, background: true });
    for (const given of [id, running.id, "resp_nobody"]) {
      const message = expect.stringContaining(`response ${given} is not stored here`);
      const unknown = { status: 404, code: "response_not_found", message };
      await expect(theirs.responses.retrieve(given)).rejects.toMatchObject(unknown);
      await expect(theirs.responses.retrieve(given, { stream: true })).rejects.toMatchObject(unknown);
      await expect(theirs.responses.cancel(given)).rejects.toMatchObject(unknown);
      await expect(theirs.responses.delete(given)).rejects.toMatchObject(unknown);
      await expect(theirs.responses.inputItems.list(given)).rejects.toMatchObject(unknown);
      await expect(theirs.responses.create({ ...body, previous_response_id: given })).rejects.toMatchObject({
        status: 400,
        code: "previous_response_not_found",
      });
    }
    const socket = await open(server, { headers: { authorization: "Bearer theirs" } });
    socket.send({ type: "response.attach", response_id: running.id });
    socket.create({ previous_response_id: id, stream_id: "a" });
    expect((await socket.until(isEnd, 2)).map(({ error }) => (error as { code: string }).code).sort()).toEqual([
      "previous_response_not_found",
      "response_not_found",
    ]);
    socket.socket.close();
    expect((await mine.responses.retrieve(id)).status).toBe("completed");
    await mine.responses.cancel(running.id);
    await expectIdle(server);
  });
});
