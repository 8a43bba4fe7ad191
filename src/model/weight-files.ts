/**
 * Which files of a checkpoint folder hold its weights: safetensors before torch's pickles, one file before shards with an
 * index, as Hugging Face's transformers looks for them. Reads indexes, no weights.
 */
import { existsSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { isJsonObject, parseJsonObject } from "./strict-json.ts";
import { invalidCheckpoint } from "./weights.ts";

export type WeightFormat = "safetensors" | "torch";

/** Names of the files that a folder may have, in the order of preference. */
export const WEIGHT_LAYOUTS = [
  { format: "safetensors", file: "model.safetensors", isIndex: false },
  { format: "safetensors", file: "model.safetensors.index.json", isIndex: true },
  { format: "torch", file: "pytorch_model.bin", isIndex: false },
  { format: "torch", file: "pytorch_model.bin.index.json", isIndex: true },
] as const satisfies readonly { format: WeightFormat; file: string; isIndex: boolean }[];

export interface WeightFiles {
  readonly format: WeightFormat;
  /** Relative to the folder, sorted. */
  readonly files: readonly string[];
  readonly index?: WeightIndex;
}

export interface WeightIndex {
  readonly file: string;
  /** Tensor → the shard that holds it. */
  readonly shardOf: ReadonlyMap<string, string>;
}

/** @throws `invalid_checkpoint` if there are no weights, or for a malformed index or a shard that is not there. */
export function findWeightFiles(modelDir: string): WeightFiles {
  const layout = WEIGHT_LAYOUTS.find(({ file }) => existsSync(join(modelDir, file)));
  if (layout === undefined) {
    throw invalidCheckpoint(`${modelDir} holds none of ${WEIGHT_LAYOUTS.map(({ file }) => file).join(", ")}`);
  }
  const { format, file } = layout;
  if (!layout.isIndex) return { format, files: [file] };
  const index = readWeightIndex(modelDir, file);
  for (const [tensor, shard] of index.shardOf) {
    if (existsSync(join(modelDir, shard))) continue;
    throw invalidCheckpoint(`${join(modelDir, shard)} is missing; ${file} says that it holds tensor ${tensor}`);
  }
  return { format, files: shardsOf(index), index };
}

/** @throws `invalid_checkpoint` */
export function readWeightIndex(modelDir: string, file: string): WeightIndex {
  const path = join(modelDir, file);
  let text: string;
  try {
    text = readFileSync(path, "utf8").replace(/^\uFEFF/, "");
  } catch (cause) {
    throw invalidCheckpoint(`cannot read ${path}: ${cause instanceof Error ? cause.message : cause}`, cause);
  }
  const { weight_map: map } = parseJsonObject(text, path);
  if (!isJsonObject(map)) throw invalidCheckpoint(`${path}: weight_map is missing`);
  const shardOf = new Map<string, string>();
  for (const [tensor, shard] of Object.entries(map)) {
    if (typeof shard !== "string" || shard === "" || basename(shard) !== shard || shard.includes("\\")) {
      throw invalidCheckpoint(`${path}: ${JSON.stringify(shard)} is not the name of a file in this folder`);
    }
    shardOf.set(tensor, shard);
  }
  if (shardOf.size === 0) throw invalidCheckpoint(`${path}: weight_map lists no tensor`);
  return { file, shardOf };
}

export function shardsOf({ shardOf }: WeightIndex): string[] {
  return [...new Set(shardOf.values())].sort();
}
