/**
 * A vocabulary for models of random weights: token n reads as the word `n`. Servers can stream its text, every chunk of
 * text is exactly one token, and two servers' outputs can be compared as text.
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";

const SPECIAL = ["<unk>", "<s>", "</s>"];
export const NUM_SPECIAL = SPECIAL.length;

/** SentencePiece's spelling: ▁ is a space. */
export function numberedPieces(vocabSize: number): string[] {
  return Array.from({ length: vocabSize }, (_, id) => SPECIAL[id] ?? `▁${id}`);
}

/** Writes `tokenizer.json` into `modelDir`. */
export async function writeNumberedTokenizer(modelDir: string, vocabSize: number): Promise<void> {
  const pieces = numberedPieces(vocabSize);
  const tokenizer = {
    version: "1.0",
    added_tokens: SPECIAL.map((content, id) => ({ id, content, special: true, ...PLAIN })),
    normalizer: { type: "Replace", pattern: { String: " " }, content: "▁" },
    pre_tokenizer: null,
    post_processor: null,
    decoder: { type: "Replace", pattern: { String: "▁" }, content: " " },
    model: {
      type: "BPE",
      unk_token: "<unk>",
      fuse_unk: true,
      byte_fallback: false,
      vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])),
      merges: [],
    },
  };
  await writeFile(join(modelDir, "tokenizer.json"), JSON.stringify(tokenizer));
}

const PLAIN = { single_word: false, lstrip: false, rstrip: false, normalized: false };
