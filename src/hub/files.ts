/** Which files of a repository a model needs: config, tokenizer, weights in the best format. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { DenseMambaError } from "../errors.ts";
import { findWeightFiles, WEIGHT_LAYOUTS } from "../model/weight-files.ts";
import type { HubFile } from "./client.ts";
import { formatModelId, type ModelId } from "./model-id.ts";

const CONFIG_FILE = "config.json";
const TOKENIZER_FILE = "tokenizer.json";

/** What text needs besides a checkpoint; a model may lack any of them. */
export const TEXT_FILES = [
  TOKENIZER_FILE,
  "tokenizer_config.json",
  "special_tokens_map.json",
  "chat_template.jinja",
  "generation_config.json",
] as const;

/** The whole model, or its tokenizer alone. */
export type Part = "model" | "tokenizer";

/** Whether a folder has the indispensable files of a part. */
export function isComplete(dir: string, part: Part): boolean {
  if (part === "tokenizer") return existsSync(join(dir, TOKENIZER_FILE));
  if (!existsSync(join(dir, CONFIG_FILE))) return false;
  try {
    findWeightFiles(dir);
    return true;
  } catch (error) {
    if (error instanceof DenseMambaError) return false;
    throw error;
  }
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
    if (find(TOKENIZER_FILE) === undefined) throw missing(TOKENIZER_FILE);
    return { files: texts, index: undefined };
  }
  const config = find(CONFIG_FILE);
  const layout = WEIGHT_LAYOUTS.find(({ file }) => find(file) !== undefined);
  if (config === undefined) throw missing(CONFIG_FILE);
  if (layout === undefined) throw missing(`any of ${WEIGHT_LAYOUTS.map(({ file }) => file).join(", ")}`);
  const weights = find(layout.file)!;
  return { files: [config, ...texts, weights], index: layout.isIndex ? weights : undefined };
}

/** @throws `pull_failed` for a shard that the repository does not have */
export function findShards(id: ModelId, listed: readonly HubFile[], names: readonly string[]): HubFile[] {
  return names.map((name) => {
    const file = listed.find(({ path }) => path === name);
    if (file !== undefined) return file;
    throw new DenseMambaError("pull_failed", `${formatModelId(id)} does not have ${name}, which its index names`);
  });
}
