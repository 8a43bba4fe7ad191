/** Which of a repository's files a model needs: config, tokenizer, and its weights in the one format that is read best. */
import { DenseMambaError } from "../errors.ts";
import { WEIGHT_LAYOUTS } from "../model/weight-files.ts";
import type { HubFile } from "./client.ts";
import { formatModelId, type ModelId } from "./model-id.ts";

const CONFIG_FILE = "config.json";

/** What text needs beside a checkpoint; a model may lack any of them. */
export const TEXT_FILES = [
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "chat_template.jinja",
  "generation_config.json",
] as const;

export interface NeededFiles {
  /** Small ones first. */
  readonly files: readonly HubFile[];
  /** Among them, an index: its shards are needed too. */
  readonly index: HubFile | undefined;
}

/** @throws `pull_failed` naming what is missing. */
export function chooseFiles(id: ModelId, listed: readonly HubFile[]): NeededFiles {
  const find = (name: string) => listed.find(({ path }) => path === name);
  const config = find(CONFIG_FILE);
  const layout = WEIGHT_LAYOUTS.find(({ file }) => find(file) !== undefined);
  if (config === undefined || layout === undefined) {
    const missing = config === undefined ? CONFIG_FILE : `any of ${WEIGHT_LAYOUTS.map(({ file }) => file).join(", ")}`;
    throw new DenseMambaError("pull_failed", `${formatModelId(id)} does not hold ${missing}`);
  }
  const weights = find(layout.file)!;
  const texts = TEXT_FILES.map(find).filter((file) => file !== undefined);
  return { files: [config, ...texts, weights], index: layout.isIndex ? weights : undefined };
}

/** @throws `pull_failed` for a shard that the repository does not hold. */
export function findShards(id: ModelId, listed: readonly HubFile[], names: readonly string[]): HubFile[] {
  return names.map((name) => {
    const file = listed.find(({ path }) => path === name);
    if (file !== undefined) return file;
    throw new DenseMambaError("pull_failed", `${formatModelId(id)} does not hold ${name}, which its index names`);
  });
}
