/**
 * Two small tokenizers of the two kinds that matter, written as a checkpoint's files: byte-level
 * BPE (GPT-NeoX, Mamba) and SentencePiece-like BPE with byte fallback (LLaMA).
 */
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

export type TokenizerJson = Record<string, unknown> & { model: Record<string, unknown> };

export interface TinyFiles {
  readonly json: unknown;
  readonly config?: unknown;
  /** Further files: name → content, objects as JSON. */
  readonly others?: Readonly<Record<string, unknown>>;
}

/** @returns the folder's path, below the system's temporary folder */
export async function writeTokenizer({ json, config, others = {} }: TinyFiles): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "tiny-tokenizer-"));
  const files = { "tokenizer.json": json, ...(config !== undefined && { "tokenizer_config.json": config }), ...others };
  for (const [name, content] of Object.entries(files)) {
    await writeFile(join(dir, name), typeof content === "string" ? content : JSON.stringify(content));
  }
  return dir;
}

const LLAMA_SPECIAL = ["<unk>", "<s>", "</s>"];
const LLAMA_MERGES = [
  "▁ t",
  "h e",
  "▁t he",
  "▁ h",
  "▁h e",
  "l l",
  "ll o",
  "▁he llo",
  "▁ w",
  "o r",
  "▁w or",
  "l d",
  "é é",
];

/** 3 special tokens, 256 bytes, ▁, the printing ASCII characters, é, and what the merges make. */
export function byteFallbackJson(): TokenizerJson {
  const bytes = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
  const ascii = Array.from({ length: 94 }, (_, i) => String.fromCharCode(0x21 + i));
  const pieces = [
    ...LLAMA_SPECIAL,
    ...bytes,
    "▁",
    ...ascii,
    "é",
    ...LLAMA_MERGES.map((merge) => merge.replace(" ", "")),
  ];
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: LLAMA_SPECIAL.map((content, id) => added(id, content)),
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "Prepend", prepend: "▁" },
        { type: "Replace", pattern: { String: " " }, content: "▁" },
      ],
    },
    pre_tokenizer: null,
    post_processor: {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      pair: [{ Sequence: { id: "A", type_id: 0 } }, { Sequence: { id: "B", type_id: 0 } }],
      special_tokens: { "<s>": { id: "<s>", ids: [1], tokens: ["<s>"] } },
    },
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "▁" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        { type: "Strip", content: " ", start: 1, stop: 0 },
      ],
    },
    model: bpe(pieces, LLAMA_MERGES, { unk_token: "<unk>", fuse_unk: true, byte_fallback: true }),
  };
}

export const BYTE_FALLBACK_CONFIG = { bos_token: "<s>", eos_token: "</s>", unk_token: "<unk>", add_bos_token: true };

/**
 * The 256 bytes in GPT-2's spelling, one special token, and merges, some of which end inside a
 * character.
 */
export function byteLevelJson(): TokenizerJson {
  const alphabet = byteLevelAlphabet();
  const spell = (text: string) => [...Buffer.from(text)].map((byte) => alphabet[byte]!);
  const [e2, x82, xac] = spell("€") as [string, string, string];
  const [f0, x9f, x98] = spell("😀") as [string, string, string, string];
  const merges = [
    `${spell(" ")[0]} t`,
    "h e",
    `${e2} ${x82}`,
    `${e2}${x82} ${xac}`,
    `${f0} ${x9f}`,
    `${f0}${x9f} ${x98}`,
    `a ${f0}`,
    "l l",
    "ll o",
  ];
  const pieces = ["<|endoftext|>", ...alphabet, ...merges.map((merge) => merge.replace(" ", ""))];
  return {
    version: "1.0",
    added_tokens: [added(0, "<|endoftext|>"), { ...added(pieces.length, "    "), special: false }],
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    decoder: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    model: bpe(pieces, merges, { unk_token: null, fuse_unk: false, byte_fallback: false }),
  };
}

function bpe(pieces: readonly string[], merges: readonly string[], options: object) {
  return {
    type: "BPE",
    dropout: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    ignore_merges: false,
    ...options,
    vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])),
    merges,
  };
}

function added(id: number, content: string) {
  return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
}

/** Byte → the character that spells it. */
function byteLevelAlphabet(): string[] {
  let next = 0;
  return Array.from({ length: 256 }, (_, byte) => {
    const prints = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
    return String.fromCodePoint(prints ? byte : 256 + next++);
  });
}
