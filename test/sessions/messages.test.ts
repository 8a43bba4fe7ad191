/**
 * A stored message is found in its tokens, or stored as text if the tokenizer does not give it
 * back.
 */
import fc from "fast-check";
import { beforeAll, expect, test } from "vitest";
import {
  addMessages,
  type MessageSpan,
  messageSpans,
  messagesOf,
  NO_MESSAGES,
  newMessages,
  textOf,
  toSpan,
} from "../../src/sessions/messages.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { tinyTokenizer } from "../helpers/generation-harness.ts";

let tokenizer: Tokenizer;
beforeAll(async () => {
  tokenizer = await tinyTokenizer();
});

const message = fc.record(
  {
    role: fc.constantFrom("user", "assistant"),
    content: fc.string({ unit: "binary", maxLength: 12 }),
    name: fc.string(),
    toolCalls: fc.array(fc.record({ id: fc.string(), name: fc.string(), arguments: fc.json() }), { maxLength: 2 }),
    toolCallId: fc.string(),
  },
  { requiredKeys: ["role", "content"] },
);

/** One span for each list of messages, rendered between brackets, and the conversation's tokens. */
async function toSpans(numBefore: number, turns: readonly (readonly { role: string; content: string }[])[]) {
  let tokenIds = Array.from({ length: numBefore }, () => 50);
  const spans: MessageSpan[] = [];
  for (const messages of turns) {
    const begin = tokenIds.length;
    const shown = messages.map(({ role, content }) => `[${role}]${content}[end]`).join("");
    tokenIds = tokenIds.concat((await tokenizer.encodeContinuation(shown))!);
    const range = { tokenIds, begin, end: tokenIds.length };
    spans.push(toSpan(range, textOf(tokenizer, range), messages));
  }
  return { tokenIds, spans };
}

test("messages are restored from JSON and the tokens", async () => {
  const turns = fc.array(fc.array(message, { maxLength: 3 }), { maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(fc.nat(3), turns, async (numBefore, given) => {
      const { tokenIds, spans } = await toSpans(numBefore, given);
      const stored = messageSpans.parse(JSON.parse(JSON.stringify(spans)));
      expect(messagesOf(tokenizer, stored, tokenIds, numBefore)).toEqual(given.flat());
    }),
  );
});

test("only text that the tokens do not give is stored", async () => {
  const { tokenIds, spans } = await toSpans(2, [
    [
      { role: "user", content: "hello" },
      { role: "user", content: "world" },
    ],
    [{ role: "assistant", content: "the" }],
  ]);
  expect(JSON.stringify(spans)).not.toMatch(/hello|world|the/);
  const incomplete = toSpan({ begin: 2, end: tokenIds.length }, "[user]hel", [{ role: "user", content: "hello" }]);
  expect(incomplete.messages).toEqual([{ role: "user", content: "hello" }]);
});

test("a message is read without decoding other spans", async () => {
  const { tokenIds, spans } = await toSpans(0, [
    [{ role: "user", content: "hello ".repeat(1000) }],
    [{ role: "assistant", content: "the" }],
  ]);
  let numDecoded = 0;
  const counting: Pick<Tokenizer, "stream"> = {
    stream: (options) => {
      const stream = tokenizer.stream(options);
      const push = (id: number) => {
        numDecoded++;
        return stream.push(id);
      };
      return { push, isOpen: false, flush: () => stream.flush() };
    },
  };
  const messages = messagesOf(counting, spans, tokenIds, 0);
  expect(messages.at(-1)!.content).toBe("the");
  expect(numDecoded).toBe(spans[1]!.numTokens);
  expect(messages[0]!.content + messages[0]!.content).toBe("hello ".repeat(2000));
  expect(numDecoded).toBe(tokenIds.length);
});

test("a conversation with calls is known again, whatever their ids and white space", () => {
  const call = (id: string, json: string) => ({ id, name: "f", arguments: json });
  const conversation = (id: string, json: string, result = "5") => [
    { role: "user", content: "a" },
    { role: "assistant", content: "", toolCalls: [call(id, json), call(`${id}2`, "{")] },
    { role: "tool", content: result, toolCallId: id },
  ];
  const chain = addMessages(NO_MESSAGES, conversation("x", '{"a": [1,  2]}'));
  const next = { role: "user", content: "b" };
  const known = (given: ReturnType<typeof conversation>) => newMessages(chain, [...given, next]).length === 1;
  expect(known(conversation("x", '{"a": [1,  2]}'))).toBe(true);
  expect(known(conversation("y", '{"a":[1,2]}'))).toBe(true);
  expect(known(conversation("x", '{"a":[1,3]}'))).toBe(false);
  expect(known(conversation("x", '{"a": [1,  2]}', "6"))).toBe(false);
});
