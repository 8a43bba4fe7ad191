/** States that clients keep, over HTTP: a conversation on servers that keep nothing. */
import { createHmac } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { newConversation } from "../../src/sessions/conversation.ts";
import { SignedStates } from "../../src/sessions/signed-states.ts";
import { encodeSnapshot } from "../../src/sessions/stores/codec.ts";
import { post, type RealServer, startRealServer } from "../helpers/real-server.ts";

const SECRET = "correct horse battery staple";

interface Answer {
  readonly choices: {
    readonly text: string;
    readonly message: { readonly content: string };
    readonly state?: string;
  }[];
  readonly usage: {
    readonly prompt_tokens: number;
    readonly prompt_tokens_details: { readonly cached_tokens: number };
  };
  readonly error?: { readonly message: string; readonly code: string; readonly param: string };
}

let servers: RealServer[] = [];
beforeAll(async () => {
  const stateSecret = SECRET;
  servers = [await startRealServer({ stateSecret }), await startRealServer({ stateSecret }), await startRealServer()];
}, 120_000);
afterAll(() => Promise.all(servers.map((server) => server.close())));

async function send(path: string, body: object, server = servers[0]!): Promise<Answer & { readonly status: number }> {
  const response = await post(`${server.url}${path}`, body);
  return { ...((await response.json()) as Answer), status: response.status };
}

const ASK = { temperature: 0, max_tokens: 8, ignore_eos: true };
const say = (content: string, more: object = {}, server = servers[0]!) =>
  send("/v1/chat/completions", { messages: [{ role: "user", content }], ...ASK, ...more }, server);
const numRead = ({ usage }: Answer) => usage.prompt_tokens - usage.prompt_tokens_details.cached_tokens;

describe("a conversation whose state the client keeps", () => {
  it("goes on on any server with the secret, as a session would", async () => {
    await send("/v1/sessions", { session_id: "s" });
    const questions = ["Tell me of the sea.", "And then?", "And the end?"];
    let state: string | undefined;
    for (const [i, question] of questions.entries()) {
      const inSession = await say(question, { session_id: "s" });
      const kept = await say(question, { return_state: true, ...(state && { state }) }, servers[i % 2]);
      expect(kept.status).toBe(200);
      expect(kept.choices[0]!.message).toEqual(inSession.choices[0]!.message);
      expect(kept.usage).toEqual(inSession.usage);
      state = kept.choices[0]!.state!;
      expect(inSession.choices[0]).not.toHaveProperty("state");
    }
    // It is as large as before, but for the tokens.
    expect(Buffer.from(state!, "base64").length).toBeLessThan(280_000);
  });

  it("may be continued any number of times, with nothing new, and from where a stop was cut off", async () => {
    const first = await send("/v1/completions", { prompt: "Once upon a time", ...ASK, return_state: true });
    const { state, text } = first.choices[0]!;
    const twice = [];
    for (let i = 0; i < 2; i++) twice.push((await send("/v1/completions", { prompt: "", state, ...ASK })).choices[0]);
    expect(twice[1]).toEqual(twice[0]);
    const whole = await send("/v1/completions", { prompt: "Once upon a time", ...ASK, max_tokens: 16 });
    expect(text + twice[0]!.text).toBe(whole.choices[0]!.text);
    const stop = text.slice(3, 6);
    const cut = await send("/v1/completions", { prompt: "Once upon a time", ...ASK, stop, return_state: true });
    const after = { prompt: text.slice(text.indexOf(stop)), state: cut.choices[0]!.state, ...ASK };
    expect((await send("/v1/completions", after)).choices[0]!.text).toBe(twice[0]!.text);
  });

  it("has the state in the last chunk of a stream", async () => {
    const direct = await say("Tell me of the sea.", { return_state: true });
    const response = await post(`${servers[0]!.url}/v1/chat/completions`, {
      messages: [{ role: "user", content: "Tell me of the sea." }],
      ...ASK,
      stream: true,
      return_state: true,
    });
    const events = (await response.text()).split("\n\n").filter((event) => event.startsWith("data: {"));
    const chunks = events.map((event) => JSON.parse(event.slice(6)) as Answer);
    expect(chunks.filter(({ choices }) => choices[0]?.state !== undefined)).toHaveLength(1);
    const { state } = chunks.at(-1)!.choices[0]!;
    const [next, expected] = [state, direct.choices[0]!.state].map((each) => say("And then?", { state: each }));
    expect((await next)!.choices).toEqual((await expected)!.choices);
    expect(numRead((await next)!)).toBeLessThan(20);
  });
});

describe("refused", () => {
  let state: string;
  beforeAll(async () => {
    state = (await say("Tell me of the sea.", { return_state: true })).choices[0]!.state!;
  });

  const altered = (change: (bytes: Buffer) => Buffer) => change(Buffer.from(state, "base64")).toString("base64");
  const flipped = (bytes: Buffer, at: number) => bytes.fill(bytes[at]! ^ 1, at, at + 1);
  const FOREIGN = "is not one that a server with this one's --state-secret has made, or has been altered or cut";

  it.each<[string, () => string]>([
    ["one changed bit", () => altered((bytes) => flipped(bytes, bytes.length - 40))],
    ["another signature", () => altered((bytes) => bytes.fill(7, 0, 32))],
    ["half of it", () => altered((bytes) => bytes.subarray(0, bytes.length / 2))],
    ["less than a signature", () => altered((bytes) => bytes.subarray(0, 20))],
    ["its snapshot alone", () => altered((bytes) => bytes.subarray(32))],
    ["10 GB by its header", () => altered((bytes) => bytes.fill(255, 32 + 72, 32 + 76))],
    ["text", () => "not base64!"],
  ])("%s", async (_, given) => {
    const answer = await say("And then?", { state: given() });
    expect(answer.status).toBe(400);
    expect(answer.error).toMatchObject({ code: "invalid_snapshot", param: "state" });
    expect(answer.error!.message).toContain(FOREIGN);
  });

  it("a state of a server with another secret", async () => {
    expect((await say("And then?", { state }, servers[2])).error!.message).toContain(FOREIGN);
    expect((await say("And then?", { state }, servers[1])).status).toBe(200);
  });

  it.each([
    ["n", { n: 2, return_state: true }, "return_state needs n and best_of to be 1"],
    ["a session too", { session_id: "s", state: "x" }, "state can't be given together with session_id"],
    ["a persona too", { persona: "p", state: "x" }, "state can't be given together with persona"],
    ["a session's", { session_id: "s", return_state: true }, "return_state can't be true together with session_id"],
    ["a number", { state: 5 }, "state must be a string"],
    ["nothing", { state: "" }, "state must have at least 1 character"],
  ])("%s", async (_, more, message) => {
    const answer = await say("x", more);
    expect(answer.status).toBe(400);
    expect(answer.error!.message).toContain(message);
  });

  it("several prompts", async () => {
    const answer = await send("/v1/completions", { prompt: ["a", "b"], return_state: true });
    expect(answer.error!.message).toContain("return_state needs exactly one prompt; got 2");
  });

  it("what is rightly signed, but of another model, or malformed", async () => {
    const snapshot = (modelHash: string) => ({
      modelHash,
      tokenIds: [1],
      position: 1,
      state: new Uint8Array(8),
      conversation: { ...newConversation(0), numPreambleTokens: 1 },
    });
    const states = new SignedStates({ modelHash: "abc", stateBytes: 8 }, SECRET);
    expect(await states.open(await states.sign(snapshot("abc")))).toMatchObject({ tokenIds: [1] });
    const open = async (text: string) => states.open(text);
    await expect(open(await states.sign(snapshot("xyz")))).rejects.toMatchObject({
      code: "invalid_import",
      message: expect.stringContaining("was made by model xyz; this server runs abc"),
    });
    const forged = encodeSnapshot(snapshot("abc"));
    forged.writeBigUInt64LE(10n * 2n ** 30n, 72);
    const signature = createHmac("sha256", SECRET).update(forged).digest();
    await expect(open(Buffer.concat([signature, forged]).toString("base64"))).rejects.toThrow(
      /bytes long; its header says 107/,
    );
    const wide = new SignedStates({ modelHash: "abc", stateBytes: 16 }, SECRET);
    await expect(wide.open(await states.sign(snapshot("abc")))).rejects.toThrow(
      "8 bytes of state; this model's state has 16",
    );
  });
});
