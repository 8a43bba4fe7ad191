import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { loadTokenizer } from "../../src/tokenizer/load.ts";
import {
  BYTE_FALLBACK_CONFIG,
  byteFallbackJson,
  byteLevelJson,
  type TinyFiles,
  type TokenizerJson,
  writeTokenizer,
} from "../helpers/tiny-tokenizers.ts";

const open = async (files: TinyFiles) => (await loadTokenizer(await writeTokenizer(files)))!;

test("a folder without tokenizer.json has no tokenizer", async () => {
  expect(await loadTokenizer(await mkdtemp(join(tmpdir(), "empty-")))).toBeUndefined();
});

test("special tokens may be written as text, as an AddedToken, or in special_tokens_map.json", async () => {
  const json = byteFallbackJson();
  const asText = await open({ json, config: BYTE_FALLBACK_CONFIG });
  const asObject = await open({
    json,
    config: { bos_token: { __type: "AddedToken", content: "<s>", lstrip: false }, eos_token: { content: "</s>" } },
  });
  const inMap = await open({ json, others: { "special_tokens_map.json": { bos_token: "<s>", eos_token: "</s>" } } });
  for (const tokenizer of [asText, asObject, inMap]) {
    expect(tokenizer.bosTokenId).toBe(1);
    expect(tokenizer.eosTokenId).toBe(2);
    expect(tokenizer.specialTokens.eos_token).toBe("</s>");
    expect([...tokenizer.specialIds].sort()).toEqual([0, 1, 2]);
  }
});

test("one token may have several roles", async () => {
  const roles = { bos_token: "<|endoftext|>", eos_token: "<|endoftext|>", pad_token: "<|endoftext|>" };
  const tokenizer = await open({ json: byteLevelJson(), config: roles });
  expect(tokenizer.bosTokenId).toBe(0);
  expect(tokenizer.eosTokenId).toBe(0);
});

test("add_bos_token and add_eos_token overrule the post-processor", async () => {
  const json = byteFallbackJson();
  const encode = async (config: object) =>
    (await open({ json, config: { ...BYTE_FALLBACK_CONFIG, ...config } })).encode("the", { addSpecialTokens: true });
  const the = await (await open({ json })).encode("the", { addSpecialTokens: false });
  expect(await (await open({ json })).encode("the", { addSpecialTokens: true })).toEqual([1, ...the]);
  expect(await encode({})).toEqual([1, ...the]);
  expect(await encode({ add_bos_token: false })).toEqual(the);
  expect(await encode({ add_eos_token: true })).toEqual([1, ...the, 2]);
  const plain = await open({
    json: byteLevelJson(),
    config: { bos_token: "<|endoftext|>", eos_token: null, add_bos_token: true },
  });
  expect(await plain.encode("", { addSpecialTokens: true })).toEqual([0]);
  expect(plain.addsBos).toBe(true);
});

test("generation_config.json adds ids that end a generation", async () => {
  const tokenizer = await open({
    json: byteFallbackJson(),
    config: BYTE_FALLBACK_CONFIG,
    others: { "generation_config.json": { eos_token_id: [2, 7] } },
  });
  expect([...tokenizer.endTokenIds]).toEqual([2, 7]);
});

test("the chat template is a string, one of several by name, or a file of its own", async () => {
  const json = byteFallbackJson();
  const template = async (chat: unknown, others = {}) =>
    (await open({ json, config: { chat_template: chat }, others })).chatTemplate;
  const named = [
    { name: "tool_use", template: "T" },
    { name: "default", template: "D" },
  ];
  expect(await template("S")).toBe("S");
  expect(await template(named.slice(1))).toBe("D");
  expect(await template(named)).toMatch(/T.*D/);
  expect(await template("S", { "chat_template.jinja": "F" })).toBe("F");
  expect(await template(undefined)).toBeUndefined();
});

test("settings of the training run do not cut or pad prompts", async () => {
  const tokenizer = await open({
    json: {
      ...byteFallbackJson(),
      truncation: { direction: "Right", max_length: 2, strategy: "LongestFirst", stride: 0 },
      padding: {
        strategy: { Fixed: 64 },
        direction: "Right",
        pad_to_multiple_of: null,
        pad_id: 0,
        pad_type_id: 0,
        pad_token: "<unk>",
      },
    },
  });
  expect(
    tokenizer.decode(await tokenizer.encode("the world", { addSpecialTokens: false }), { skipSpecialTokens: false }),
  ).toBe("the world");
});

test("both libraries encode alike", async () => {
  const texts = ["", " ", "the world", "  hello é€😀\n", "<s>the</s> the", "hello hello", "naïve the's"];
  for (const files of [{ json: byteFallbackJson(), config: BYTE_FALLBACK_CONFIG }, { json: byteLevelJson() }]) {
    const dir = await writeTokenizer(files);
    const native = (await loadTokenizer(dir, { library: "native" }))!;
    const script = (await loadTokenizer(dir, { library: "script" }))!;
    expect(native.library).toBe("native");
    expect(script.library).toBe("script");
    for (const text of texts) {
      const options = { addSpecialTokens: true };
      expect(await script.encode(text, options)).toEqual(await native.encode(text, options));
      expect(await script.encodeContinuation(text)).toEqual(await native.encodeContinuation(text));
    }
  }
});

describe("the JavaScript library", () => {
  const bytes = byteLevelJson();
  const token = (flags: object) => ({
    ...bytes,
    added_tokens: [{ ...(bytes.added_tokens as object[])[0], ...flags }],
  });
  test.each([
    ["single_word", token({ single_word: true }), "added_tokens.0.single_word"],
    ["lstrip", token({ lstrip: true }), "added_tokens.0.lstrip"],
    ["rstrip", token({ rstrip: true }), "added_tokens.0.rstrip"],
    [
      "normalized after Prepend",
      { ...byteFallbackJson(), added_tokens: [{ id: 0, content: "<unk>", normalized: true }] },
      "added_tokens.0.normalized",
    ],
    ["Lowercase", { ...bytes, normalizer: { type: "Lowercase" } }, "normalizer Lowercase"],
    [
      "an expression to replace",
      {
        ...bytes,
        normalizer: { type: "Sequence", normalizers: [{ type: "Replace", pattern: { Regex: "a" }, content: "b" }] },
      },
      "normalizer Replace",
    ],
    ["Digits", { ...bytes, pre_tokenizer: { type: "Digits", individual_digits: true } }, "pre_tokenizer Digits"],
    [
      "Metaspace that splits",
      {
        ...byteFallbackJson(),
        pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true },
      },
      "pre_tokenizer Metaspace",
    ],
    [
      "Unigram with byte fallback",
      {
        ...byteFallbackJson(),
        added_tokens: [],
        model: {
          type: "Unigram",
          unk_id: 0,
          byte_fallback: true,
          vocab: [
            ["<unk>", 0],
            ["a", -1],
          ],
        },
      },
      "model Unigram, byte_fallback",
    ],
    [
      "WordLevel",
      { ...bytes, added_tokens: [], model: { type: "WordLevel", vocab: { a: 0 }, unk_token: "a" } },
      "model WordLevel",
    ],
    [
      "BPE without an unknown token",
      { ...byteFallbackJson(), model: { ...byteFallbackJson().model, unk_token: null } },
      "unknown token",
    ],
  ])("is refused for %s, which it does differently", async (_, json, said) => {
    const dir = await writeTokenizer({ json });
    await expect(loadTokenizer(dir, { library: "script" })).rejects.toMatchObject({
      code: "invalid_checkpoint",
      message: expect.stringMatching(new RegExp(`tokenizer\\.json: .*${said}`)),
    });
  });

  test("is refused texts with what only one of the two takes for white space", async () => {
    const tokenizer = (await loadTokenizer(await writeTokenizer({ json: bytes }), { library: "script" }))!;
    for (const text of ["a\u0085", "\uFEFFa"]) {
      await expect(tokenizer.encode(text, { addSpecialTokens: false })).rejects.toMatchObject({
        code: "invalid_value",
      });
    }
  });

  test("does what the native one does for texts of all kinds", async () => {
    const merges = ["o Ġ", "Ġ w", "Ċ Ċ", ". Ċ", "1 2", "` `", "Ġ Ġ", "Ã ©", "Ċ w"];
    const vocab = { ...(bytes.model.vocab as object) };
    const json = {
      ...bytes,
      added_tokens: [(bytes.added_tokens as object[])[0]],
      model: {
        ...bytes.model,
        vocab: Object.assign(
          vocab,
          Object.fromEntries(merges.map((merge, i) => [merge.replace(" ", ""), Object.keys(vocab).length + i])),
        ),
        merges: [...(bytes.model.merges as string[]), ...merges],
      },
    };
    const given = fc.array(
      fc.constantFrom(
        "hello",
        "o",
        "w",
        " ",
        "\n",
        ".",
        "12",
        "3",
        "``",
        "é",
        "e\u0301",
        "'s",
        "\u00a0",
        "\u200b",
        "٣",
        "中",
        "😀",
        "<|endoftext|>",
        "\t",
        "\r\n",
        "Σ",
      ),
      { maxLength: 12 },
    );
    for (const normalizer of [null, { type: "NFC" }, { type: "NFKD" }]) {
      const dir = await writeTokenizer({ json: { ...json, normalizer } });
      const [native, script] = await Promise.all(
        (["native", "script"] as const).map(async (library) => (await loadTokenizer(dir, { library }))!),
      );
      await fc.assert(
        fc.asyncProperty(given, async (parts) => {
          const text = parts.join("");
          const options = { addSpecialTokens: false };
          expect(await script!.encode(text, options)).toEqual(await native!.encode(text, options));
        }),
        { numRuns: 200 },
      );
    }
  });
});

test("an added token whose id the library would not use is refused", async () => {
  const json = byteLevelJson();
  const added = [
    ...(json.added_tokens as object[]),
    { ...(json.added_tokens as object[])[0], content: "<far>", id: 4000 },
  ];
  const dir = await writeTokenizer({ json: { ...json, added_tokens: added } });
  await expect(loadTokenizer(dir)).rejects.toMatchObject({
    code: "invalid_checkpoint",
    message: expect.stringContaining('"<far>" has id 4000'),
  });
});

describe("other decoders", () => {
  const wordPiece = (decoder: object | null): TokenizerJson => ({
    version: "1.0",
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: { type: "Whitespace" },
    post_processor: null,
    decoder,
    model: {
      type: "WordPiece",
      unk_token: "[UNK]",
      continuing_subword_prefix: "##",
      max_input_chars_per_word: 100,
      vocab: { "[UNK]": 0, play: 1, "##ing": 2, "▁on": 3, ".": 4, "▁": 5 },
    },
  });
  test.each([
    ["WordPiece", { type: "WordPiece", prefix: "##", cleanup: true }, [1, 2, 1, 4], "playing play."],
    ["Metaspace", { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true }, [3, 3], "on on"],
    [
      "Metaspace without prepending",
      { type: "Metaspace", replacement: "▁", prepend_scheme: "never" },
      [3, 3],
      " on on",
    ],
    ["none", null, [1, 4], "play ."],
  ])("%s", async (_, decoder, ids, text) => {
    const tokenizer = await open({ json: wordPiece(decoder) });
    expect(tokenizer.decode(ids, { skipSpecialTokens: false })).toBe(text);
  });

  test("one whose text depends on later tokens is refused by name", async () => {
    const dir = await writeTokenizer({ json: wordPiece({ type: "CTC", pad_token: "<pad>" }) });
    await expect(loadTokenizer(dir)).rejects.toMatchObject({
      code: "invalid_checkpoint",
      message: expect.stringContaining("CTC"),
    });
  });
});

test.each([
  ["no JSON", "{", "is not JSON"],
  ["no model", { version: "1.0" }, "model"],
  ["a negative id", { ...byteFallbackJson(), model: { type: "BPE", vocab: { a: -1 }, merges: [] } }, "vocab"],
  ["an enormous id", { ...byteFallbackJson(), model: { type: "BPE", vocab: { a: 4e9 }, merges: [] } }, "vocab"],
  ["an unknown model", { ...byteFallbackJson(), model: { type: "Nonsense", vocab: {} } }, "tokenizer.json"],
  ["an unknown post-processor", { ...byteFallbackJson(), post_processor: { type: "Odd" } }, "Odd"],
  ["a malformed post-processor", { ...byteFallbackJson(), post_processor: { type: "TemplateProcessing" } }, "single"],
])("tokenizer.json with %s is refused as such", async (_, json, said) => {
  const dir = await writeTokenizer({ json });
  await expect(loadTokenizer(dir)).rejects.toMatchObject({
    code: "invalid_checkpoint",
    message: expect.stringContaining(said),
  });
});

test("a byte order mark is passed over", async () => {
  const withMark = (json: object) => `\ufeff${JSON.stringify(json)}`;
  const others = { "generation_config.json": withMark({ eos_token_id: 2 }) };
  const tokenizer = await open({ json: withMark(byteFallbackJson()), config: withMark(BYTE_FALLBACK_CONFIG), others });
  expect(tokenizer.bosTokenId).toBe(1);
});

test("a malformed tokenizer_config.json is named", async () => {
  const dir = await writeTokenizer({ json: byteFallbackJson(), config: { bos_token: 5 } });
  await expect(loadTokenizer(dir)).rejects.toMatchObject({
    code: "invalid_checkpoint",
    message: expect.stringMatching(/tokenizer_config\.json: bos_token/),
  });
});
