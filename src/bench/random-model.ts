/**
 * Models with random weights, and what they are asked. Their vocabulary reads token n as the word
 * `n`, so that every chunk of text is exactly one token and two servers' outputs can be compared as
 * text.
 */
import { existsSync } from "node:fs";
import { rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  describeShape,
  RANDOM_SHAPES,
  type RandomShape,
  writeRandomCheckpoint,
} from "../compiler/random-checkpoint.ts";
import type { Precision } from "../model/artifact.ts";
import { numElements } from "../model/state.ts";
import { SeededRandom } from "../sampling/random.ts";

/** `mamba-4m` is the packaged model without its dense links, which llama.cpp does not have. */
export const BENCH_SHAPES = {
  ...RANDOM_SHAPES,
  "mamba-4m": { ...RANDOM_SHAPES["densemamba-4m"], denseLayers: 0 },
} as const satisfies Record<string, RandomShape>;

export type ShapeName = keyof typeof BENCH_SHAPES;

/** The folder of a checkpoint, made once and kept in the cache folder. */
export async function randomCheckpoint(cacheDir: string, shape: ShapeName): Promise<string> {
  const modelDir = join(cacheDir, "bench", shape);
  if (!existsSync(join(modelDir, "tokenizer.json"))) {
    // Moved into place when it is complete: a benchmark that was interrupted leaves no half
    // checkpoint.
    const partial = `${modelDir}.${process.pid}`;
    await writeRandomCheckpoint({ outDir: partial, shape: BENCH_SHAPES[shape], seed: 1, dtype: dtypeOf(shape) });
    await writeNumberedTokenizer(partial, BENCH_SHAPES[shape].vocabSize);
    await rm(modelDir, { recursive: true, force: true });
    await rename(partial, modelDir);
  }
  return modelDir;
}

/** Large models are published in 16 bits, and would fill a disk in 32. */
function dtypeOf(shape: ShapeName): "F32" | "F16" {
  const { tensors } = describeShape(BENCH_SHAPES[shape]);
  return tensors.reduce((sum, tensor) => sum + numElements(tensor.shape), 0) > 1e9 ? "F16" : "F32";
}

/** Of a weight in embedding and head, scales aside. */
const TABLE_BYTES: Readonly<Record<Precision, number>> = { f32: 4, f16: 2, bf16: 2, int8: 1, int4: 1 };

/** Of the weights, what a step does not read: a head's own table leaves a row of the embedding's. */
export function unreadBytes(shape: ShapeName, precision: Precision): number {
  const head = describeShape(BENCH_SHAPES[shape]).tensors.find(({ name }) => name === "lm_head.weight");
  return head === undefined ? 0 : numElements(head.shape) * TABLE_BYTES[precision];
}

const SPECIAL = ["<unk>", "<s>", "</s>"];
export const NUM_SPECIAL = SPECIAL.length;

/** In SentencePiece's spelling: ▁ is a space. */
export function numberedPieces(vocabSize: number): string[] {
  return Array.from({ length: vocabSize }, (_, id) => SPECIAL[id] ?? `▁${id}`);
}

/** Writes `tokenizer.json` into `modelDir`. */
export async function writeNumberedTokenizer(modelDir: string, vocabSize: number): Promise<void> {
  const plain = { single_word: false, lstrip: false, rstrip: false, normalized: false };
  const tokenizer = {
    version: "1.0",
    added_tokens: SPECIAL.map((content, id) => ({ id, content, special: true, ...plain })),
    normalizer: { type: "Replace", pattern: { String: " " }, content: "▁" },
    pre_tokenizer: null,
    post_processor: null,
    decoder: { type: "Replace", pattern: { String: "▁" }, content: " " },
    model: {
      type: "BPE",
      unk_token: "<unk>",
      fuse_unk: true,
      byte_fallback: false,
      vocab: Object.fromEntries(numberedPieces(vocabSize).map((piece, id) => [piece, id])),
      merges: [],
    },
  };
  await writeFile(join(modelDir, "tokenizer.json"), JSON.stringify(tokenizer));
}

/**
 * Ids that every model's vocabulary has. Each seed gives another prompt: nothing can be answered
 * from a cache.
 */
export function randomPrompt(length: number, seed: number): number[] {
  const random = new SeededRandom(seed);
  return Array.from({ length }, () => NUM_SPECIAL + Math.floor(random.next() * 250));
}
