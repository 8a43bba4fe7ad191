/** JSON from clients: bounded by what it holds, before it is parsed. */
import { describe, expect, it } from "vitest";
import { JsonReader, parseJson } from "../../src/server/openai/json-reader.ts";
import { startTestServer } from "../helpers/listening-server.ts";
import { createTestServer, DEFAULT_SERVER_OPTIONS } from "../helpers/server-deps.ts";

const bounds = { maxDepth: 3, maxItems: 8, maxStrings: 9, maxMembers: 4 };
const parse = (text: string) => parseJson(Buffer.from(text), bounds);

describe("JSON within the bounds", () => {
  it.each([
    '{"a":[1,2,[3]]}',
    '"[[[[[[[[{{{{:::::,,,,,,,,,"',
    String.raw`{"a":"\"[[[[[","b":"\\","c":["\\\"[[[[[[[[["]}`,
    '"é中😀"',
  ])("is what JSON.parse makes of it, in whatever pieces it comes: %s", (text) => {
    const bytes = Buffer.from(text);
    for (let at = 0; at <= bytes.length; at++) {
      const reader = new JsonReader(bounds);
      reader.push(bytes.subarray(0, at));
      reader.push(bytes.subarray(at));
      expect(reader.parse()).toEqual(JSON.parse(text));
    }
  });
});

it.each([
  ["[[[[]]]]", "nested at most 3 levels deep"],
  ['{"a":{"a":{"a":{}}}}', "nested at most 3 levels deep"],
  ["[1,2,3,4,5,6,7,8,9]", "at most 8 values"],
  ["[[],[],[],[],[]]", "at most 8 values"],
  ['["","","","","",["","","","",""]]', "at most 8 values"],
  ['[{"":"","a":"","b":"","c":""},["",""]]', "at most 9 strings"],
  ['{"a":1,"b":2,"c":3,"d":4,"e":5}', "at most 4 members of objects"],
])("%s is refused, with the bound", (text, message) => {
  expect(() => parse(text)).toThrow(message);
});

it("a byte order mark is dropped, however the body is split", async () => {
  await using server = await startTestServer();
  const body = Buffer.from('\ufeff{"prompt":"a"}');
  const headers = { "content-type": "application/json" };
  const whole = await fetch(`${server.url}/v1/completions`, { method: "POST", headers, body });
  const stream = new Blob([body]).stream();
  const init = { method: "POST", headers, body: stream, duplex: "half" } as RequestInit;
  const chunked = await fetch(`${server.url}/v1/completions`, init);
  expect([whole.status, chunked.status]).toEqual([200, 200]);
});

describe("nested brackets", () => {
  const deep = (depth: number) => `${"[".repeat(depth)}${"]".repeat(depth)}`;

  it.each([
    ["/v1/completions", "prompt"],
    ["/v1/completions", "logit_bias"],
    ["/v1/completions", "stop"],
    ["/v1/completions", "unknown"],
    ["/v1/chat/completions", "messages"],
    ["/v1/chat/completions", "chat_template_kwargs"],
    ["/v1/responses", "input"],
    ["/v1/responses", "metadata"],
    ["/v1/sessions", "session_id"],
    ["/tokenize", "prompt"],
    ["/detokenize", "tokens"],
  ])("on %s in %s are a 400", async (path, field) => {
    const server = createTestServer();
    for (const depth of [101, 5000, 100_000]) {
      const response = await server.post(path, `{"${field}":${deep(depth)}}`);
      expect(response.status).toBe(400);
      expect(await response.json()).toMatchObject({
        error: { code: "invalid_value", message: expect.stringContaining("at most 100 levels") },
      });
    }
    // As deep as may be: whatever it is, it is no fault of ours.
    expect((await server.post(path, `{"${field}":${deep(99)}}`)).status).toBeLessThan(500);
  });

  it("are refused while they arrive", async () => {
    await using server = await startTestServer({
      limits: { ...DEFAULT_SERVER_OPTIONS.limits, maxBodyBytes: 32 * 2 ** 20 },
    });
    let sent = 0;
    const body = new ReadableStream({
      pull(controller) {
        sent += 65_536;
        controller.enqueue(new Uint8Array(65_536).fill(0x5b));
        if (sent > 16 * 2 ** 20) controller.close();
      },
    });
    const headers = { "content-type": "application/json" };
    const init = { method: "POST", headers, body, duplex: "half" } as RequestInit;
    const response = await fetch(`${server.url}/v1/completions`, init);
    expect(response.status).toBe(400);
  });
});
