/**
 * From `--model` and `--tokenizer` to folders or files. A path is one already; a name such as
 * `org/name@revision` is looked up in the hub's cache, and pulled if it is not there. A folder may
 * also hold models, each in a folder of its own.
 */
import { readdirSync, statSync } from "node:fs";
import path from "node:path";
import { readHubSettings } from "../config/process.ts";
import type { Config } from "../config/schema.ts";
import type { ModelSource } from "../config/values.ts";
import { DenseMambaError } from "../errors.ts";
import type { Part } from "../hub/files.ts";
import { parseModelId } from "../hub/model-id.ts";
import type { PullProgress } from "../hub/pull.ts";

/**
 * The same configuration with folders in place of names.
 * @throws `invalid_config`, `pull_failed`
 */
export async function withModelFolders(config: Config, onProgress: (progress: PullProgress) => void): Promise<Config> {
  const folderOf = (given: string, part: Part) => findFolder(given, part, onProgress);
  const model = await folderOf(config.model, "model");
  const otherModels: ModelSource[] = [];
  for (const { name, path } of config.otherModels) otherModels.push({ name, path: await folderOf(path, "model") });
  const tokenizer = config.tokenizer && (await folderOf(config.tokenizer, "tokenizer"));
  return Object.freeze({ ...config, model, otherModels: Object.freeze(otherModels), tokenizer });
}

/** The same configuration with the models in place of a folder of models. */
export function withModelsInside(config: Config): Config {
  const given = [{ name: undefined, path: config.model }, ...config.otherModels];
  const [first, ...otherModels] = given.flatMap((source): ModelSource[] => {
    const inside = modelsIn(source.path);
    return inside.length === 0 ? [source] : inside.map((path) => ({ name: undefined, path }));
  });
  return Object.freeze({ ...config, model: first!.path, otherModels: Object.freeze(otherModels) });
}

/** A config, a manifest, or weights. */
const MODEL_FILE = /^(?:config|params|manifest)\.json$|\.(?:safetensors|pth|bin)$/;

/** @returns the models in a folder of models, in the order of their names; none of any other */
function modelsIn(folder: string): string[] {
  if (!statSync(folder).isDirectory() || isModel(folder)) return [];
  const inside = readdirSync(folder).sort();
  return inside.map((name) => path.join(folder, name)).filter(isModel);
}

function isModel(folder: string): boolean {
  if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory()) return false;
  return readdirSync(folder).some((name) => MODEL_FILE.test(name));
}

/** For commands that take one model. @throws `invalid_config` if several are given */
export function requireSingleModel(config: Config): Config {
  if (config.otherModels.length === 0) return config;
  const numModels = 1 + config.otherModels.length;
  throw new DenseMambaError("invalid_config", `this command takes one --model, ${numModels} given`);
}

/** Files that may be named instead of a folder: weights, or a vocabulary. */
const FILES: Readonly<Record<Part, { readonly pattern: RegExp; readonly kinds: string }>> = {
  model: { pattern: /\.(pth|safetensors)$/, kinds: ".pth or .safetensors" },
  tokenizer: { pattern: /\.txt$/, kinds: ".txt" },
};

async function findFolder(given: string, part: Part, onProgress: (progress: PullProgress) => void): Promise<string> {
  const found = statSync(given, { throwIfNoEntry: false });
  if (found?.isDirectory() || (found?.isFile() && FILES[part].pattern.test(given))) return given;
  const id = found === undefined ? parseModelId(given) : undefined;
  if (id === undefined) {
    const problem =
      found === undefined ? "names no folder that exists" : `must name a folder or a ${FILES[part].kinds} file`;
    throw new DenseMambaError("invalid_config", `--${part} ${problem}: ${given} given`);
  }
  // Loaded only when needed: it brings Hugging Face's client.
  const { ensureModel } = await import("../hub/pull.ts");
  try {
    return await ensureModel({ id, part, hub: readHubSettings(), onProgress });
  } catch (error) {
    if (!(error instanceof DenseMambaError)) throw error;
    // A name with a slash may have been meant as a path.
    throw new DenseMambaError(error.code, `there is no folder ${given} here, and ${error.message}`, { cause: error });
  }
}
