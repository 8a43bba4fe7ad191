import fc from "fast-check";
import { Tokenizer as Library } from "tokenizers";
import { describe, expect, test } from "vitest";
import type { TokenizerJson } from "../../src/tokenizer/files.ts";
import { IncrementalDecoder } from "../../src/tokenizer/incremental-decoder.ts";
import { VocabTable } from "../../src/tokenizer/vocab-table.ts";

const NOTHING: ReadonlySet<number> = new Set();
const replace = (pattern: object, content: string) => ({ type: "Replace", pattern, content });
const sequence = (...decoders: object[]) => ({ type: "Sequence", decoders });
const metaspace = (prepend_scheme: string) => ({ type: "Metaspace", replacement: "▁", prepend_scheme, split: true });
const byteLevel = { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true };
const fallback = { type: "ByteFallback" };
const fuse = { type: "Fuse" };
const strip = (start: number) => ({ type: "Strip", content: " ", start, stop: 0 });
const toSpace = replace({ String: "▁" }, " ");

const WORDS = [
  "▁the",
  "the",
  "▁",
  "▁▁",
  "##ing",
  "##",
  "play",
  ".",
  ",",
  "'",
  "s",
  "n't",
  "'m",
  " do",
  "not",
  "'s",
  "##'s",
  "é",
  "中",
  "a b",
  " ",
  "\n",
  "?",
];
const BYTES = ["<0x41>", "<0x0A>", "<0xE2>", "<0x82>", "<0xAC>", "<0xFF>", "<0xZZ>"];
/** Parts of `€` and `é`, whole ones, what is no byte, and a space. */
const BYTE_LEVEL = ["the", "Ġthe", "âĤ", "¬", "â", "Ĥ¬", "Ã©", "Ã", "ÿ", "Ġ", "Ċ", "▁", "中", "A"];

function open(decoder: object | null, pieces: readonly string[]) {
  const added = ["<s>", "[A B]", " sp "].map((content, i) => ({
    ...{ id: pieces.length + i, content, special: i === 0 },
    ...{ single_word: false, lstrip: false, rstrip: false, normalized: false },
  }));
  const vocab = Object.fromEntries(pieces.map((piece, id) => [piece, id]));
  const json = {
    ...{ version: "1.0", truncation: null, padding: null, normalizer: null, pre_tokenizer: null, post_processor: null },
    ...{ added_tokens: added, decoder, model: { type: "WordLevel", vocab, unk_token: pieces[0] } },
  };
  const table = new VocabTable(json as unknown as TokenizerJson);
  const decode = (ids: readonly number[], skippedIds: ReadonlySet<number> = NOTHING) => {
    const stream = new IncrementalDecoder(table, { skippedIds });
    return ids.map((id) => stream.push(id)).join("") + stream.flush();
  };
  const idsOf = (...given: string[]) => given.map((piece) => pieces.indexOf(piece));
  return { decode, idsOf, library: Library.fromString(JSON.stringify(json)), size: pieces.length + added.length };
}

describe("decodes as the library does:", () => {
  test.each<[string, object | null, readonly string[]]>([
    ["no decoder", null, WORDS],
    ["WordPiece", { type: "WordPiece", prefix: "##", cleanup: true }, WORDS],
    ["WordPiece, untidied", { type: "WordPiece", prefix: "##", cleanup: false }, WORDS],
    ["Metaspace", metaspace("always"), WORDS],
    ["Metaspace, first", metaspace("first"), WORDS],
    ["Metaspace, never", metaspace("never"), WORDS],
    ["ByteLevel, also broken characters", byteLevel, BYTE_LEVEL],
    ["Fuse", fuse, WORDS],
    ["Replace", replace({ String: "e" }, "$&"), WORDS],
    ["Replace by an expression", replace({ Regex: "t|h" }, "z"), WORDS],
    ["Strip", sequence(toSpace, fuse, strip(2)), WORDS],
    ["LLaMA's", sequence(toSpace, fallback, fuse, strip(1)), WORDS],
    [
      "WordPiece and Replace",
      sequence({ type: "WordPiece", prefix: "##", cleanup: false }, replace({ String: " " }, "_")),
      WORDS,
    ],
    ["Metaspace and Replace", sequence(metaspace("always"), replace({ String: " " }, "_")), WORDS],
    ["Replace and ByteLevel", sequence(replace({ String: "A" }, "z"), byteLevel), BYTE_LEVEL],
  ])("%s", async (_, decoder, pieces) => {
    const { decode, library, size } = open(decoder, pieces);
    const special = new Set([pieces.length]);
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(size), { minLength: 1, maxLength: 5 }), fc.boolean(), async (ids, skips) => {
        expect(decode(ids, skips ? special : NOTHING)).toBe(await library.decode(ids, skips));
      }),
      { numRuns: 500 },
    );
  });

  test("bytes, where they spell whole characters", async () => {
    const { decode, library, idsOf, size } = open(sequence(toSpace, fallback, fuse, strip(1)), [...WORDS, ...BYTES]);
    const euro = idsOf("<0xE2>", "<0x82>", "<0xAC>");
    const bytes = new Set(idsOf(...BYTES.slice(2, 6)));
    const part = fc.oneof(
      fc
        .nat(size)
        .filter((id) => !bytes.has(id))
        .map((id) => [id]),
      fc.constant(euro),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(part, { minLength: 1, maxLength: 6 }), async (parts) => {
        expect(decode(parts.flat())).toBe(await library.decode(parts.flat(), false));
      }),
      { numRuns: 500 },
    );
  });
});

test("among byte pieces each broken part of a character is one U+FFFD", async () => {
  const { decode, idsOf, library } = open(sequence(fallback, fuse), [...WORDS, ...BYTES]);
  const ids = idsOf("<0x41>", "<0xE2>", "<0x82>", "<0x0A>", "<0xFF>", "the");
  expect(decode(ids)).toBe("A\uFFFD\n\uFFFDthe");
  // The library takes all of a run of bytes back if any is broken: a stream cannot wait for its
  // end.
  expect(await library.decode(ids, false)).toBe("\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDthe");
});

test("WordPiece's mark stays only on the first piece", () => {
  const { decode, idsOf } = open({ type: "WordPiece", prefix: "##", cleanup: true }, WORDS);
  expect(decode(idsOf("##ing", "##ing"))).toBe("##inging");
  expect(decode([WORDS.length, ...idsOf("##ing", "play")], new Set([WORDS.length]))).toBe("##ing play");
  expect(decode(idsOf("play", "##ing"))).toBe("playing");
});

test.each([
  ["Replace after ByteFallback", sequence(fallback, toSpace)],
  ["ByteFallback after ByteLevel", sequence(byteLevel, fallback)],
  ["ByteLevel after ByteFallback", sequence(fallback, byteLevel)],
  ["BPEDecoder", { type: "BPEDecoder", suffix: "</w>" }],
])("%s is refused: its text depends on what comes later", (what, decoder) => {
  expect(() => open(decoder, WORDS)).toThrow(what);
});
