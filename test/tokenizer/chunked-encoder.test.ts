import { readFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ChunkedEncoder } from "../../src/tokenizer/chunked-encoder.ts";
import { Encoder } from "../../src/tokenizer/encoder.ts";
import { readTokenizerFiles } from "../../src/tokenizer/files.ts";
import { findTextCuts } from "../../src/tokenizer/text-cuts.ts";
import { VocabTable } from "../../src/tokenizer/vocab-table.ts";
import { numCases } from "../helpers/random-cases.ts";
import { byteFallbackJson, byteLevelJson, type TokenizerJson, writeTokenizer } from "../helpers/tiny-tokenizers.ts";

const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const LLAMA3 =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

const mark = { type: "Replace", pattern: { String: " " }, content: "▁" };
const normalizers = (...steps: object[]) => ({ normalizer: { type: "Sequence", normalizers: steps } });
const split = (Regex: string) => ({
  pre_tokenizer: {
    type: "Sequence",
    pretokenizers: [
      { type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false },
      { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
    ],
  },
});
/** Added to the byte-level vocabulary. */
const token = (content: string, flags: object = {}) => ({
  id: (byteLevelJson().model.vocab as Record<string, number>)[content] ?? 267,
  content,
  ...{ single_word: false, lstrip: false, rstrip: false, normalized: false, special: false },
  ...flags,
});
const withTokens = (json: TokenizerJson, ...tokens: object[]) => ({
  ...json,
  added_tokens: [...(json.added_tokens as object[]), ...tokens],
});
const metaspace = (more: object) => ({
  ...byteFallbackJson(),
  normalizer: null,
  pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true, ...more },
});
/** A model whose pieces are all that the texts below hold, for pre-tokenizers that split words. */
const words = (pre_tokenizer: object, more: object = {}): TokenizerJson => ({
  ...byteFallbackJson(),
  normalizer: null,
  pre_tokenizer,
  ...more,
});
const merges = (json: TokenizerJson, ...pairs: string[]): TokenizerJson => {
  const vocab = json.model.vocab as Record<string, number>;
  const pieces = pairs.map((pair, i) => [pair.replace(" ", ""), Object.keys(vocab).length + i]);
  return {
    ...json,
    model: {
      ...json.model,
      vocab: { ...vocab, ...Object.fromEntries(pieces) },
      merges: [...(json.model.merges as string[]), ...pairs],
    },
  };
};

/** Whether a place to cut is known, and the tokenizer. */
const PIPELINES: readonly [name: string, hasCuts: boolean, json: TokenizerJson][] = [
  ["byte-level", true, byteLevelJson()],
  ["byte-level, composing characters", true, { ...byteLevelJson(), normalizer: { type: "NFC" } }],
  [
    "byte-level, a space in front",
    true,
    { ...byteLevelJson(), pre_tokenizer: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true } },
  ],
  ["byte-level, lower case", true, { ...byteLevelJson(), normalizer: { type: "Lowercase" } }],
  [
    "byte-level, nothing split",
    true,
    {
      ...byteLevelJson(),
      pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
    },
  ],
  [
    "byte-level, stripped",
    false,
    { ...byteLevelJson(), ...normalizers({ type: "Strip", strip_left: true, strip_right: true }) },
  ],
  ["GPT-2's expression", true, { ...byteLevelJson(), ...split(GPT2) }],
  ["Llama 3's expression", true, { ...byteLevelJson(), ...split(LLAMA3) }],
  ["an expression of its own", false, { ...byteLevelJson(), ...split("a b|\\s+") }],
  ["byte fallback", true, byteFallbackJson()],
  ["byte fallback, a piece of two words", true, merges(byteFallbackJson(), "o ▁w", "o▁w or")],
  ["byte fallback, a piece after a break", true, merges(byteFallbackJson(), "<0x0A> t")],
  ["Metaspace", true, metaspace({})],
  ["Metaspace, first", true, metaspace({ prepend_scheme: "first" })],
  ["Metaspace, never", true, metaspace({ prepend_scheme: "never" })],
  ["Metaspace, unsplit", true, metaspace({ split: false })],
  ["words", true, words({ type: "Whitespace" })],
  [
    "words and digits",
    true,
    words({
      type: "Sequence",
      pretokenizers: [{ type: "Digits", individual_digits: true }, { type: "WhitespaceSplit" }],
    }),
  ],
  [
    "words after marks",
    true,
    words({
      type: "Sequence",
      pretokenizers: [
        { type: "WhitespaceSplit" },
        { type: "Metaspace", replacement: "▁", prepend_scheme: "first", split: true },
      ],
    }),
  ],
  [
    "words of a normalizer",
    true,
    words(
      { type: "BertPreTokenizer" },
      {
        normalizer: {
          type: "BertNormalizer",
          clean_text: true,
          handle_chinese_chars: true,
          strip_accents: null,
          lowercase: true,
        },
      },
    ),
  ],
  [
    "replaced signs",
    true,
    words({ type: "Whitespace" }, normalizers({ type: "Replace", pattern: { String: "``" }, content: '"' })),
  ],
  [
    "signs replaced by space",
    false,
    words({ type: "Whitespace" }, normalizers({ type: "Replace", pattern: { String: "." }, content: " " })),
  ],
  ["marks of a normalizer, then words", true, words({ type: "Whitespace" }, normalizers(mark))],
  ["a token of two words", true, withTokens(byteLevelJson(), token("o w"))],
  ["a token that takes the spaces after it", true, withTokens(byteLevelJson(), token("o", { rstrip: true }))],
  ["a token that takes spaces before it", true, withTokens(byteLevelJson(), token("w", { lstrip: true }))],
  ["a token that is a word", true, withTokens(byteLevelJson(), token(" w", { single_word: true }))],
  ["a token after a break", true, withTokens(byteLevelJson(), token("\nw"))],
  ["a token of a space", true, withTokens(byteLevelJson(), token(" "))],
  [
    "a normalised token",
    true,
    withTokens(
      { ...byteLevelJson(), normalizer: { type: "Lowercase" } },
      token("O", { rstrip: true, normalized: true }),
    ),
  ],
];

const text = fc
  .array(
    fc.oneof(
      {
        weight: 6,
        arbitrary: fc.constantFrom(
          "hello",
          "o",
          "w",
          "the",
          "W",
          "O",
          "it's",
          "12",
          "3",
          ".",
          "(",
          '"',
          "``",
          "café",
          "é",
          "中文",
          "。",
          "ª",
          "😀",
        ),
      },
      { weight: 5, arbitrary: fc.constantFrom(" ", "\n") },
      {
        weight: 1,
        arbitrary: fc.constantFrom(
          "  ",
          "\n\n",
          "\t",
          " \n",
          "\r\n",
          "▁",
          "\u00a0",
          "\u0301",
          "<|endoftext|>",
          "<s>",
          "\u0338",
          "\ufeff",
          "\u3000",
        ),
      },
    ),
    { maxLength: 24 },
  )
  .map((parts) => parts.join(""));

async function open(json: TokenizerJson) {
  const files = (await readTokenizerFiles(await writeTokenizer({ json })))!;
  const [pieces, cuts] = [new VocabTable(files.json), findTextCuts(files.json)];
  const encoder = await Encoder.open(files, "native");
  return {
    cuts,
    whole: new ChunkedEncoder(encoder, pieces, undefined),
    inParts: new ChunkedEncoder(encoder, pieces, cuts, 1),
  };
}

describe.each(PIPELINES)("%s", (_, hasCuts, json) => {
  test("a text in parts has the ids of the whole", async () => {
    const { cuts, whole, inParts } = await open(json);
    expect(cuts !== undefined).toBe(hasCuts);
    await fc.assert(
      fc.asyncProperty(text, async (given) => {
        expect(await inParts.encode(given)).toEqual(await whole.encode(given));
        expect(await inParts.encodeContinuation(given)).toEqual(await whole.encodeContinuation(given));
      }),
      { numRuns: numCases(150) },
    );
  });
});

test("the default model's tokenizer reads its training text in parts as a whole", async () => {
  const files = (await readTokenizerFiles("models/densemamba-tales-4m"))!;
  const encoder = await Encoder.open(files, "native");
  const [pieces, cuts] = [new VocabTable(files.json), findTextCuts(files.json)];
  const given = await readFile(join("docs", "api.md"), "utf8");
  const inParts = new ChunkedEncoder(encoder, pieces, cuts, 200);
  expect(await inParts.encode(given)).toEqual(await new ChunkedEncoder(encoder, pieces, undefined).encode(given));
});
