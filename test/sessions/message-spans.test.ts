/** A kept message is where its tokens say it, and comes back as it was, whatever the tokenizer makes of it. */
import fc from "fast-check";
import { beforeAll, expect, test } from "vitest";
import { type MessageSpan, messageSpans, messagesOf, textOf, toSpan } from "../../src/sessions/messages.ts";
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
  },
  { requiredKeys: ["role", "content"] },
);

/** One passage for each list of messages, shown between brackets; and the conversation's tokens. */
async function keep(numBefore: number, turns: readonly (readonly { role: string; content: string }[])[]) {
  let tokenIds = Array.from({ length: numBefore }, () => 50);
  const spans: MessageSpan[] = [];
  for (const messages of turns) {
    const begin = tokenIds.length;
    const shown = messages.map(({ role, content }) => `[${role}]${content}[end]`).join("");
    tokenIds = tokenIds.concat((await tokenizer.encodeContinuation(shown))!);
    const stretch = { tokenIds, begin, end: tokenIds.length };
    spans.push(toSpan(stretch, textOf(tokenizer, stretch), messages));
  }
  return { tokenIds, spans };
}

test("messages come back from JSON and the tokens", async () => {
  const turns = fc.array(fc.array(message, { maxLength: 3 }), { maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(fc.nat(3), turns, async (numBefore, given) => {
      const { tokenIds, spans } = await keep(numBefore, given);
      const stored = messageSpans.parse(JSON.parse(JSON.stringify(spans))) as MessageSpan[];
      expect(messagesOf(tokenizer, stored, tokenIds, numBefore)).toEqual(given.flat());
    }),
  );
});

test("what the tokens say is not kept a second time, and what they do not is", async () => {
  const { tokenIds, spans } = await keep(2, [
    [
      { role: "user", content: "hello" },
      { role: "user", content: "world" },
    ],
    [{ role: "assistant", content: "the" }],
  ]);
  expect(JSON.stringify(spans)).not.toMatch(/hello|world|the/);
  const unsaid = toSpan({ begin: 2, end: tokenIds.length }, "[user]hel", [{ role: "user", content: "hello" }]);
  expect(unsaid.messages).toEqual([{ role: "user", content: "hello" }]);
});

test("a message is read without decoding the spans of others", async () => {
  const { tokenIds, spans } = await keep(0, [
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
