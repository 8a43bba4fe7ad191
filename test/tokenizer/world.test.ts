/**
 * RWKV's World tokenizer: its file, its rule, its limits; and what its authors' own gives, where
 * the real file is at hand.
 */
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import { checkVocabulary } from "../../src/app/compose.ts";
import type { Manifest } from "../../src/model/artifact.ts";
import { ChatRenderer, type TemplateMessage } from "../../src/tokenizer/chat-template.ts";
import { loadTokenizer } from "../../src/tokenizer/load.ts";
import { WorldEncoder } from "../../src/tokenizer/world-encoder.ts";
import { parseWorldVocabulary } from "../../src/tokenizer/world-vocabulary.ts";
import { byteLines, SMALL_LITERALS, WORLD_FILE, worldText, writeWorldVocabulary } from "../helpers/world-vocabulary.ts";

const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

async function opened(...given: Parameters<typeof writeWorldVocabulary>) {
  const folder = writeWorldVocabulary(...given);
  folders.push(folder);
  return (await loadTokenizer(folder))!;
}

const PLAIN = { addSpecialTokens: false };
const END = "<|rwkv_tokenizer_end_of_text|>";
const tokens = parseWorldVocabulary(worldText(), "vocabulary");

/** At every place the longest token: by trying all of them. */
function naively(text: string): number[] {
  const bytes = Buffer.from(text);
  const ids: number[] = [];
  for (let at = 0; at < bytes.length; ) {
    const fitting = tokens.filter((token) => bytes.subarray(at, at + token.bytes.length).equals(token.bytes));
    const longest = fitting.reduce((best, token) => (token.bytes.length > best.bytes.length ? token : best));
    ids.push(longest.id);
    at += longest.bytes.length;
  }
  return ids;
}

/** Of what tokens are made of, so that they begin, overlap and break off. */
const texts = fc
  .array(
    fc.oneof(
      fc.constantFrom("the", " the", "there", "th", "a", "aa", "你好", "你", "é", "\n", "\x85", "'s", "😀"),
      fc.string(),
    ),
  )
  .map((parts) => parts.join(""));

describe("the vocabulary's file", () => {
  it("has literals of Python, of which nothing is evaluated", () => {
    const bytesOf = (literal: string, numBytes: number) =>
      parseWorldVocabulary(worldText([[literal, numBytes]]), "v")
        .at(-1)!
        .bytes.toString("hex");
    expect(bytesOf("'\\t\\\\\\'\"'", 4)).toBe(Buffer.from("\t\\'\"").toString("hex"));
    expect(bytesOf('"it\'s"', 4)).toBe(Buffer.from("it's").toString("hex"));
    expect(bytesOf("'\\x80\\u00e9\\U0001f600'", 8)).toBe(Buffer.from("\x80é😀").toString("hex"));
    expect(bytesOf("b'\\x80\\xff\\n'", 3)).toBe("80ff0a");
    expect(bytesOf("'\\101\\0'", 2)).toBe("4100");
    expect(bytesOf("'a\u2028b\u0085'", 7)).toBe(Buffer.from("a\u2028b\u0085").toString("hex"));
  });

  it.each<[string, string, RegExp]>([
    [
      "cut in mid-line",
      worldText().slice(0, -5),
      /line 271 is "271 'a", not an id, a literal and a number of bytes; the file may be cut off/,
    ],
    [
      "cut in a number",
      worldText([["'0123456789'", 10]]).slice(0, -2),
      /line 257 says that '0123456789' has 1 bytes; it has 10/,
    ],
    [
      "cut before it spells all bytes",
      byteLines().slice(0, 100).join("\n"),
      /no token is the byte 0x64 alone: 100 tokens/,
    ],
    ["empty", "", /no token is the byte 0x00 alone: 0 tokens/],
    ["with an id twice", `${worldText()}258 'x y' 3\n`, /line 272 has id 258, which line 258 has already/],
    ["with a text twice", `${worldText()}999 'the' 3\n`, /line 272 has the text 'the', which line 258 has already/],
    [
      "with a length that is not the text's",
      worldText([["'the'", 4]]),
      /line 257 says that 'the' has 4 bytes; it has 3/,
    ],
    ["with an empty token", worldText([["''", 0]]), /line 257 has a token of 0 bytes/],
    [
      "with an id beyond any vocabulary",
      `${worldText()}999999999 'x y' 3\n`,
      /line 272 has id 999999999; at most 16777216/,
    ],
    [
      "with a program in it",
      worldText([["__import__('os').system('true')", 4]]),
      /line 257 is .*, not an id, a literal/,
    ],
    ["with two literals in a row", worldText([["'a' 'bc'", 3]]), /line 257 has a malformed literal/],
    [
      "with an escape that is not known",
      worldText([["'\\q'", 2]]),
      /line 257 has an escape sequence that is not known/,
    ],
    ["with a broken escape", worldText([["'\\x4'", 2]]), /line 257 has an escape sequence that is not known/],
    ["with text in bytes", worldText([["b'你'", 3]]), /line 257 has a character in a literal of bytes/],
    ["that gives the end's id to a text", `${worldText()}0 'x y' 3\n`, /a token has id 0, which ends a text/],
  ])("%s is refused, by its line", async (_, text, message) => {
    await expect(opened(text)).rejects.toMatchObject({
      code: "invalid_checkpoint",
      message: expect.stringMatching(message),
    });
    await expect(opened(text)).rejects.toThrow(WORLD_FILE);
  });

  it("may have Windows' line ends", () => {
    expect(parseWorldVocabulary(worldText().replaceAll("\n", "\r\n"), "v")).toEqual(tokens);
  });
});

describe("a vocabulary that is cut at the end of a line", () => {
  it("is refused for a model with many more ids", async () => {
    const tokenizer = await opened();
    const manifest = (vocabSize: number) => ({ name: "rwkv", sizes: { vocabSize } }) as Manifest;
    checkVocabulary(tokenizer, manifest(tokenizer.vocabSize + 100));
    expect(() => checkVocabulary(tokenizer, manifest(65_536))).toThrow(
      /goes on to 65535; at most 1024 more are padding/,
    );
    expect(() => checkVocabulary(tokenizer, manifest(100))).toThrow(
      /ids up to 271, but the model's vocabulary ends at 99/,
    );
  });
});

describe("encoding", () => {
  it("takes the longest token at every place, however the text is cut into slices", async () => {
    const tokenizer = await opened();
    await fc.assert(
      fc.asyncProperty(texts, fc.integer({ min: 1, max: 9 }), async (text, sliceLength) => {
        const expected = naively(text);
        expect(await tokenizer.encode(text, PLAIN)).toEqual(expected);
        expect(await tokenizer.encodeContinuation(text)).toEqual(expected);
        expect(await new WorldEncoder(tokens, new Map(), sliceLength).encode(text)).toEqual(expected);
      }),
    );
  });

  it("is undone by decoding, at once and token by token", async () => {
    const tokenizer = await opened();
    await fc.assert(
      fc.asyncProperty(texts, async (text) => {
        const ids = await tokenizer.encode(text, PLAIN);
        const whole = Buffer.from(text).toString();
        expect(tokenizer.decode(ids, { skipSpecialTokens: true })).toBe(whole);
        const stream = tokenizer.stream({ skipSpecialTokens: true });
        expect(ids.map((id) => stream.push(id)).join("") + stream.flush()).toBe(whole);
      }),
    );
  });

  it("shows no half of a character while it streams", async () => {
    const tokenizer = await opened();
    const ids = await tokenizer.encode("你 你好", PLAIN);
    expect(ids).toEqual([268, 161, 33, 267]);
    const stream = tokenizer.stream({ skipSpecialTokens: true });
    expect(ids.map((id) => stream.push(id))).toEqual(["", "你", " ", "你好"]);
    expect(tokenizer.idToToken(268)).toBe("b'\\xe4\\xbd'");
    expect([...tokenizer.tokenBytes(268)]).toEqual([0xe4, 0xbd]);
  });

  it("stops soon after as many tokens as are asked for, and when nobody waits", async () => {
    const encoder = new WorldEncoder(tokens, new Map(), 100);
    const beginning = await encoder.encode("x".repeat(10_000), { maxTokens: 150 });
    expect(beginning.length).toBeGreaterThan(150);
    expect(beginning.length).toBeLessThan(300);
    const controller = new AbortController();
    const encoding = encoder.encode("x".repeat(10_000), { signal: controller.signal });
    controller.abort();
    await expect(encoding).rejects.toMatchObject({ code: "aborted" });
  });

  it("of 16 MiB gives others their turn within milliseconds of work", async () => {
    const encoder = new WorldEncoder(tokens);
    for (const text of ["there is the user's ".repeat(2 ** 20).slice(0, 2 ** 24), "你好".repeat(2 ** 21)]) {
      const encoding = encoder.encode(text);
      let isDone = false;
      void encoding.then(() => {
        isDone = true;
      });
      // Time on the CPU, which what else runs on this machine does not add to.
      const turns: number[] = [];
      for (let before = process.cpuUsage(); !isDone; before = process.cpuUsage()) {
        await setImmediate();
        const { user, system } = process.cpuUsage(before);
        turns.push((user + system) / 1000);
      }
      expect((await encoding).length).toBeGreaterThanOrEqual(2 ** 21);
      expect(turns.length).toBeGreaterThan(200);
      // Not the longest one, in which the collector may have worked.
      expect(turns.sort((a, b) => b - a)[5]).toBeLessThan(50);
    }
  });
});

describe("special tokens", () => {
  it("are one, which no text has: id 0, which ends a text", async () => {
    const tokenizer = await opened();
    expect([tokenizer.eosTokenId, tokenizer.bosTokenId, [...tokenizer.endTokenIds]]).toEqual([0, undefined, [0]]);
    expect(tokenizer.vocabSize).toBe(257 + SMALL_LITERALS.length);
    expect(await tokenizer.encode(END, PLAIN)).toEqual(naively(END));
    expect(await tokenizer.encode("the", { addSpecialTokens: true })).toEqual([258]);
    expect(tokenizer.decode([258, 0], { skipSpecialTokens: true })).toBe("the");
    expect(tokenizer.decode([258, 0], { skipSpecialTokens: false })).toBe(`the${END}`);
  });

  it("are those of the files beside it, but for a text that the vocabulary spells already", async () => {
    const tokenizer = await opened(worldText(), {
      "tokenizer_config.json": {
        eos_token: "\n\n",
        bos_token: END,
        added_tokens_decoder: {
          0: { content: END, special: true },
          300: { content: "\n\n", special: true },
          301: { content: "<|the|>", special: true },
        },
      },
      "generation_config.json": { eos_token_id: [0, 261] },
    });
    expect(await tokenizer.encode(`${END}the\n\n<|the|>`, PLAIN)).toEqual([0, 258, 261, 301]);
    expect([tokenizer.bosTokenId, tokenizer.eosTokenId, [...tokenizer.endTokenIds]]).toEqual([0, 0, [0, 261]]);
    expect(tokenizer.decode([258, 301], { skipSpecialTokens: true })).toBe("the");
    expect(tokenizer.idToToken(300)).toBeUndefined();
  });
});

describe("chats", () => {
  const MESSAGES = [
    { role: "system", content: "Be brief.\n\nBe kind." },
    { role: "user", content: " Hi!\r\n\r\nWho\n\n\nis there? " },
    { role: "assistant", content: "Me." },
    { role: "user", content: "Who?" },
  ];
  const render = async (
    files: Record<string, unknown>,
    templateArguments = {},
    messages: readonly TemplateMessage[] = MESSAGES,
  ) => {
    const renderer = new ChatRenderer(await opened(worldText(), files));
    const turns = { messages, addGenerationPrompt: true, continueFinalMessage: false };
    const chat = await renderer.render({ ...turns, templateArguments });
    renderer.close();
    return chat;
  };

  it("are plain text where the model has no template, which ends where the user would speak", async () => {
    expect(await render({})).toEqual({
      text: "System: Be brief.\nBe kind.\n\nUser: Hi!\nWho\nis there?\n\nAssistant: Me.\n\nUser: Who?\n\nAssistant:",
      stopStrings: ["\n\nUser:"],
    });
  });

  it("begin with a thought where that is asked for", async () => {
    expect((await render({}, { enable_thinking: true })).text).toMatch(/User: Who\?\n\nAssistant: <think$/);
    expect((await render({}, { enable_thinking: false })).text).toMatch(/User: Who\?\n\nAssistant:$/);
  });

  it("have what was thought in earlier turns, as the model writes it", async () => {
    const thought = MESSAGES.map((message) => {
      return message.role === "assistant" ? { ...message, reasoning: "He asks\n\nwho I am.\n" } : message;
    });
    expect((await render({}, {}, thought)).text).toContain(
      "\n\nAssistant: <think>\nHe asks\n\nwho I am.\n</think>\nMe.\n\nUser: Who?",
    );
  });

  it("may have reasoning in their answers, whose tag the prompt leaves open", async () => {
    const renderer = new ChatRenderer(await opened());
    expect(renderer.reasoningTags(undefined)).toEqual({ open: "<think>", close: "</think>" });
    renderer.close();
  });

  it("are the model's own where it has a template", async () => {
    const chat = await render({ "chat_template.jinja": `{{ '${END}' }}{{ messages[0].content }}` });
    expect(chat).toEqual({ text: `${END}Be brief.\n\nBe kind.`, stopStrings: [] });
  });
});

/** Not part of this repository: BlinkDL's file. */
const REAL = process.env.RWKV_VOCABULARY;

describe.runIf(REAL)("the World vocabulary itself", () => {
  it("gives the ids of its authors' tokenizer", async () => {
    const tokenizer = (await loadTokenizer(REAL!))!;
    expect(tokenizer.vocabSize).toBe(65_530);
    const cases = JSON.parse(readFileSync("test/fixtures/rwkv-world.json", "utf8")) as {
      text: string;
      ids: number[];
    }[];
    for (const { text, ids } of cases) {
      expect(await tokenizer.encode(text, PLAIN)).toEqual(ids);
      expect(tokenizer.decode(ids, { skipSpecialTokens: true })).toBe(text);
    }
  });
});

it("a folder may be named, or the file in it", async () => {
  const folder = writeWorldVocabulary();
  folders.push(folder);
  expect(await (await loadTokenizer(join(folder, WORLD_FILE)))!.encode("the", PLAIN)).toEqual([258]);
});
