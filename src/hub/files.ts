/** Which files of a repository a model needs: config, tokenizer, weights in the best format. */
import { existsSync } from "node:fs";
import { extname, join } from "node:path";
import { DenseMambaError } from "../errors.ts";
import { findWeightFiles, onlyWeights, WEIGHT_LAYOUTS } from "../model/weight-files.ts";
import type { HubFile } from "./client.ts";
import { formatModelId, type ModelId } from "./model-id.ts";

/** Mistral's releases have the second. */
const CONFIG_FILES = ["config.json", "params.json"];
const TOKENIZER_FILE = "tokenizer.json";
/** RWKV's: of repositories without a tokenizer.json. */
const VOCABULARY_FILE = "rwkv_vocab_v20230424.txt";

/** What text needs besides a checkpoint; a model may lack any of them. */
export const TEXT_FILES = [
  TOKENIZER_FILE,
  "tokenizer_config.json",
  "special_tokens_map.json",
  "chat_template.jinja",
  "generation_config.json",
  VOCABULARY_FILE,
] as const;

/** The whole model, or its tokenizer alone. */
export type Part = "model" | "tokenizer";

/**
 * Whether a folder has the indispensable files of a part: of a model, with the weights that `id`
 * names.
 */
export function isComplete(dir: string, part: Part, { file }: Pick<ModelId, "file"> = {}): boolean {
  const has = (name: string) => existsSync(join(dir, name));
  if (part === "tokenizer") return has(TOKENIZER_FILE) || has(VOCABULARY_FILE);
  if (file !== undefined) return has(file);
  try {
    return isConfigOptional(findWeightFiles(dir).files[0]!) || CONFIG_FILES.some(has);
  } catch (error) {
    if (error instanceof DenseMambaError) return false;
    throw error;
  }
}

/** RWKV's own releases have none. */
function isConfigOptional(weights: string): boolean {
  return extname(weights) === ".pth";
}

export interface NeededFiles {
  /** Small ones first. */
  readonly files: readonly HubFile[];
  /** One of them, if the weights are sharded: it lists the shards, which are needed too. */
  readonly index: HubFile | undefined;
}

/** @throws `pull_failed` with what is missing */
export function chooseFiles(id: ModelId, part: Part, listed: readonly HubFile[]): NeededFiles {
  const find = (name: string) => listed.find(({ path }) => path === name);
  const missing = (what: string) => new DenseMambaError("pull_failed", `${formatModelId(id)} does not have ${what}`);
  const texts = TEXT_FILES.map(find).filter((file) => file !== undefined);
  if (part === "tokenizer") {
    if (find(TOKENIZER_FILE) === undefined && find(VOCABULARY_FILE) === undefined) throw missing(TOKENIZER_FILE);
    return { files: texts, index: undefined };
  }
  const [config] = CONFIG_FILES.map(find).filter((file) => file !== undefined);
  const layout = id.file === undefined ? WEIGHT_LAYOUTS.find(({ file }) => find(file) !== undefined) : undefined;
  const others = listed.map(({ path }) => path).filter((path) => /\.(pth|safetensors)$/.test(path));
  if (config === undefined && !others.some(isConfigOptional)) throw missing(CONFIG_FILES[0]!);
  if (layout === undefined && others.length === 0) {
    throw missing(`any of ${WEIGHT_LAYOUTS.map(({ file }) => file).join(", ")}`);
  }
  const name = id.file ?? layout?.file ?? onlyWeights(others, id.repo);
  if (config === undefined && !isConfigOptional(name)) throw missing(CONFIG_FILES[0]!);
  const weights = find(name);
  if (weights === undefined) throw missing(name);
  return { files: [config ?? [], texts, weights].flat(), index: layout?.isIndex ? weights : undefined };
}

/** @throws `pull_failed` for a shard that the repository does not have */
export function findShards(id: ModelId, listed: readonly HubFile[], names: readonly string[]): HubFile[] {
  return names.map((name) => {
    const file = listed.find(({ path }) => path === name);
    if (file !== undefined) return file;
    throw new DenseMambaError("pull_failed", `${formatModelId(id)} does not have ${name}, which its index names`);
  });
}
