/** A kept message is where its tokens say it, and comes back as it was, whatever the tokenizer makes of it. */
import fc from "fast-check";
import { beforeAll, expect, test } from "vitest";
import { messagesOf, type Passage, passageList, textOf, toPassage } from "../../src/sessions/message-spans.ts";
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
  const passages: Passage[] = [];
  for (const messages of turns) {
    const begin = tokenIds.length;
    const shown = messages.map(({ role, content }) => `[${role}]${content}[end]`).join("");
    tokenIds = tokenIds.concat((await tokenizer.encodeContinuation(shown))!);
    const stretch = { tokenIds, begin, end: tokenIds.length };
    passages.push(toPassage(stretch, textOf(tokenizer, stretch), messages));
  }
  return { tokenIds, passages };
}

test("messages come back from JSON and the tokens", async () => {
  const turns = fc.array(fc.array(message, { maxLength: 3 }), { maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(fc.nat(3), turns, async (numBefore, given) => {
      const { tokenIds, passages } = await keep(numBefore, given);
      const stored = passageList.parse(JSON.parse(JSON.stringify(passages))) as Passage[];
      expect(messagesOf(tokenizer, stored, tokenIds, numBefore)).toEqual(given.flat());
    }),
  );
});

test("what the tokens say is not kept a second time, and what they do not is", async () => {
  const { tokenIds, passages } = await keep(2, [
    [
      { role: "user", content: "hello" },
      { role: "user", content: "world" },
    ],
    [{ role: "assistant", content: "the" }],
  ]);
  expect(JSON.stringify(passages)).not.toMatch(/hello|world|the/);
  const unsaid = toPassage({ begin: 2, end: tokenIds.length }, "[user]hel", [{ role: "user", content: "hello" }]);
  expect(unsaid.messages).toEqual([{ role: "user", content: "hello" }]);
});

test("a message is read without decoding the passages of others", async () => {
  const { tokenIds, passages } = await keep(0, [
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
  const messages = messagesOf(counting, passages, tokenIds, 0);
  expect(messages.at(-1)!.content).toBe("the");
  expect(numDecoded).toBe(passages[1]!.numTokens);
  expect(messages[0]!.content + messages[0]!.content).toBe("hello ".repeat(2000));
  expect(numDecoded).toBe(tokenIds.length);
});
