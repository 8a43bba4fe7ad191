/**
 * Which files of a checkpoint hold its weights: safetensors before torch's pickles, one file before
 * shards with an index, as Hugging Face's transformers looks for them; or a file by any name, as
 * RWKV's are released. Reads indexes, no weights.
 */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { basename, dirname, extname, join } from "node:path";
import { isJsonObject, parseJsonObject } from "./strict-json.ts";
import { invalidCheckpoint } from "./weights.ts";

export type WeightFormat = "safetensors" | "torch";

/** Of a single file. */
const FORMATS: Readonly<Record<string, WeightFormat>> = { ".safetensors": "safetensors", ".pth": "torch" };

/** Names of the files that a folder may have, in the order of preference. */
export const WEIGHT_LAYOUTS = [
  { format: "safetensors", file: "model.safetensors", isIndex: false },
  { format: "safetensors", file: "model.safetensors.index.json", isIndex: true },
  { format: "torch", file: "pytorch_model.bin", isIndex: false },
  { format: "torch", file: "pytorch_model.bin.index.json", isIndex: true },
  { format: "safetensors", file: "consolidated.safetensors", isIndex: false },
  { format: "torch", file: "model.pth", isIndex: false },
] as const satisfies readonly { format: WeightFormat; file: string; isIndex: boolean }[];

export interface WeightFiles {
  readonly folder: string;
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

/** A model is named by its folder, or by the file that holds its weights. */
export function modelFolder(model: string): string {
  return isFile(model) ? dirname(model) : model;
}

/**
 * @throws `invalid_checkpoint` if there are no weights, or for a malformed index or a shard that is
 * not there.
 */
export function findWeightFiles(model: string): WeightFiles {
  const folder = modelFolder(model);
  if (folder !== model) return { folder, ...singleFile(basename(model)) };
  const layout = WEIGHT_LAYOUTS.find(({ file }) => existsSync(join(folder, file)));
  if (layout === undefined) return { folder, ...singleFile(onlyWeights(namesIn(folder), folder)) };
  const { format, file } = layout;
  if (!layout.isIndex) return { folder, format, files: [file] };
  const index = readWeightIndex(folder, file);
  for (const [tensor, shard] of index.shardOf) {
    if (existsSync(join(folder, shard))) continue;
    throw invalidCheckpoint(`${join(folder, shard)} is missing; ${file} says that it holds tensor ${tensor}`);
  }
  return { folder, format, files: shardsOf(index), index };
}

/**
 * The one file of weights among others, by any name.
 * @throws `invalid_checkpoint` if there are several, or none; `where` names the place.
 */
export function onlyWeights(names: readonly string[], where: string): string {
  for (const extension of [".pth", ".safetensors"]) {
    const [file, ...others] = names.filter((name) => extname(name) === extension).sort();
    if (file === undefined) continue;
    if (others.length === 0) return file;
    throw invalidCheckpoint(
      `${where} holds ${others.length + 1} files *${extension}: name one, such as ${where}/${file}`,
    );
  }
  throw invalidCheckpoint(
    `${where} holds none of ${WEIGHT_LAYOUTS.map(({ file }) => file).join(", ")}, and no other *.pth or *.safetensors`,
  );
}

function singleFile(file: string): Omit<WeightFiles, "folder"> {
  const format = FORMATS[extname(file)];
  if (format !== undefined) return { format, files: [file] };
  throw invalidCheckpoint(`${file} is not a file of weights: ${Object.keys(FORMATS).join(" or ")}`);
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() === true;
}

/** Without links that lead nowhere. */
function namesIn(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder).filter((name) => existsSync(join(folder, name))) : [];
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
