/**
 * From `--model` and `--tokenizer` to folders or files. A path is one already; a name such as
 * `org/name@revision` is looked up in the hub's cache, and pulled if it is not there.
 */
import { statSync } from "node:fs";
import { readHubSettings } from "../config/process.ts";
import type { Config } from "../config/schema.ts";
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
  const tokenizer = config.tokenizer && (await folderOf(config.tokenizer, "tokenizer"));
  return Object.freeze({ ...config, model, tokenizer });
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
