import { readFile } from "node:fs/promises";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { loadTokenizer } from "../../src/tokenizer/load.ts";
import type { ModelTokenizer } from "../../src/tokenizer/model-tokenizer.ts";
import { BYTE_FALLBACK_CONFIG, byteFallbackJson, byteLevelJson, writeTokenizer } from "../helpers/tiny-tokenizers.ts";

const TALES = "models/densemamba-tales-4m";

const KINDS = {
  "byte-level BPE": async () =>
    writeTokenizer({ json: byteLevelJson(), config: { bos_token: "<|endoftext|>", eos_token: "<|endoftext|>" } }),
  "BPE with byte fallback": async () => writeTokenizer({ json: byteFallbackJson(), config: BYTE_FALLBACK_CONFIG }),
  "the default model's": async () => TALES,
};

describe.each(Object.entries(KINDS))("%s", (_, open) => {
  let tokenizer: ModelTokenizer;
  beforeAll(async () => {
    tokenizer = (await loadTokenizer(await open()))!;
  });

  const ids = () => fc.array(fc.integer({ min: 0, max: tokenizer.vocabSize + 3 }), { maxLength: 16 });

  test("deltas and flush joined equal the whole text, after any context", () => {
    fc.assert(
      fc.property(ids(), ids(), fc.boolean(), (contextIds, given, skipSpecialTokens) => {
        const context = tokenizer.stream({ skipSpecialTokens });
        const before = contextIds.map((id) => context.push(id)).join("");
        const stream = tokenizer.stream({ skipSpecialTokens, contextIds });
        const deltas = given.map((id) => stream.push(id)).join("") + stream.flush();
        expect(before + deltas).toBe(tokenizer.decode([...contextIds, ...given], { skipSpecialTokens }));
      }),
      { numRuns: 1000 },
    );
  });

  test("no U+FFFD is emitted that a later byte would have completed, and no broken byte is held for ever", () => {
    fc.assert(
      fc.property(ids(), ids(), (first, second) => {
        const stream = tokenizer.stream({ skipSpecialTokens: false });
        const emitted = first.map((id) => stream.push(id)).join("");
        const whole = tokenizer.decode([...first, ...second], { skipSpecialTokens: false });
        expect(whole.startsWith(emitted)).toBe(true);
        // What is missing is at most one open character.
        expect([...stream.flush()].length).toBeLessThanOrEqual(1);
      }),
      { numRuns: 500 },
    );
  });

  test("text survives encoding and decoding", async () => {
    const text = fc.oneof(randomText(20), fc.constantFrom("  two", " a", "€ 😀\n\ttab"));
    await fc.assert(
      fc.asyncProperty(text, async (given) => {
        const encoded = await tokenizer.encode(given, { addSpecialTokens: false });
        expect(tokenizer.decode(encoded, { skipSpecialTokens: false })).toBe(given);
      }),
      { numRuns: 200 },
    );
  });

  test("text encoded as a continuation follows the text before, with nothing between", async () => {
    const text = randomText(12);
    await fc.assert(
      fc.asyncProperty(text, text, async (first, second) => {
        const ids = [
          ...(await tokenizer.encode(first, { addSpecialTokens: true })),
          ...(await tokenizer.encodeContinuation(second))!,
        ];
        expect(tokenizer.decode(ids, { skipSpecialTokens: true })).toBe(
          first === "" ? stripOnce(second) : first + second,
        );
      }),
      { numRuns: 200 },
    );
    function stripOnce(second: string): string {
      return tokenizer.addsBos && second.startsWith(" ") ? second.slice(1) : second;
    }
  });

  test("a token's bytes and texts agree", () => {
    for (let id = 0; id < tokenizer.vocabSize; id++) {
      expect(Buffer.from(tokenizer.tokenBytes(id)).toString("utf8")).toBe(tokenizer.tokenText(id));
    }
  });
});

test("the first delta keeps its space after a prompt, and loses it at the beginning of a text", async () => {
  const tokenizer = (await loadTokenizer(await KINDS["BPE with byte fallback"]()))!;
  const [the] = await tokenizer.encode("the", { addSpecialTokens: false });
  const promptIds = await tokenizer.encode("He said", { addSpecialTokens: true });
  const after = (contextIds: readonly number[]) => tokenizer.stream({ skipSpecialTokens: true, contextIds }).push(the!);
  expect(after(promptIds)).toBe(" the");
  expect(after([tokenizer.bosTokenId!])).toBe("the");
  expect(after([])).toBe("the");
  expect(tokenizer.tokenText(the!)).toBe(" the");
  expect(tokenizer.idToToken(the!)).toBe("▁the");
});

test("special tokens are skipped or decoded", async () => {
  const tokenizer = (await loadTokenizer(TALES))!;
  const ids = [1, ...(await tokenizer.encode("Hi", { addSpecialTokens: false })), 2];
  expect(tokenizer.decode(ids, { skipSpecialTokens: true })).toBe("Hi");
  expect(tokenizer.decode(ids, { skipSpecialTokens: false })).toBe("<s>Hi</s>");
});

test("a character spelled in four byte tokens comes whole, with its last byte", async () => {
  const tokenizer = (await loadTokenizer(TALES))!;
  const ids = await tokenizer.encodeContinuation("😀!");
  const stream = tokenizer.stream({ skipSpecialTokens: true, contextIds: [1, 300] });
  expect(ids!.map((id) => stream.push(id))).toEqual(["", "", "", "😀", "!"]);
});

test("a character that the prompt leaves open is completed by the answer", async () => {
  const tokenizer = (await loadTokenizer(TALES))!;
  const ids = (await tokenizer.encodeContinuation("€"))!;
  expect(ids).toHaveLength(3);
  const stream = tokenizer.stream({ skipSpecialTokens: true, contextIds: ids.slice(0, 2) });
  expect(stream.push(ids[2]!)).toBe("€");
});

test("our table decodes as the library does", async () => {
  const { Tokenizer } = await import("@huggingface/tokenizers");
  const library = new Tokenizer(JSON.parse(await readFile(`${TALES}/tokenizer.json`, "utf8")), {});
  const tokenizer = (await loadTokenizer(TALES))!;
  // Whole pieces only: for broken UTF-8 the libraries disagree with one another.
  const whole = Array.from({ length: tokenizer.vocabSize }, (_, id) => id).filter((id) => id < 3 || id > 258);
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...whole), { minLength: 1, maxLength: 10 }), fc.boolean(), (ids, skip) => {
      expect(tokenizer.decode(ids, { skipSpecialTokens: skip })).toBe(
        library.decode(ids, { skip_special_tokens: skip, clean_up_tokenization_spaces: false }),
      );
    }),
  );
});

/**
 * NOTE: `▁` is how the SentencePiece kinds spell a space: written in a text it comes back as one,
 * by their definition.
 */
function randomText(maxLength: number): fc.Arbitrary<string> {
  return fc.string({ unit: "grapheme", maxLength }).map((text) => text.replaceAll("▁", "_"));
}
