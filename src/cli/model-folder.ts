/**
 * From `--model` and `--tokenizer` to folders: a path is one, a name such as `org/name@revision` is looked up in the cache of
 * the hub and pulled if it is not there.
 */
import { statSync } from "node:fs";
import { type Config, readHubSettings } from "../config.ts";
import { DenseMambaError } from "../errors.ts";
import type { Part } from "../hub/files.ts";
import { type ModelId, parseModelId } from "../hub/model-id.ts";
import { showProgress } from "./progress.ts";
import { type Terminal, write } from "./terminal.ts";

/** The same configuration with folders in place of names. @throws `pull_failed` */
export async function withFolders(config: Config, terminal: Terminal): Promise<Config> {
  const model = await folderOf(config.model, "model", terminal);
  const { tokenizer } = config;
  if (tokenizer === undefined) return Object.freeze({ ...config, model });
  return Object.freeze({ ...config, model, tokenizer: await folderOf(tokenizer, "tokenizer", terminal) });
}

async function folderOf(given: string, part: Part, terminal: Terminal): Promise<string> {
  const found = statSync(given, { throwIfNoEntry: false });
  if (found?.isDirectory()) return given;
  const id = found === undefined ? parseModelId(given) : undefined;
  if (id === undefined) {
    const problem = found === undefined ? "names no folder that exists" : "must name a folder, a file";
    throw new DenseMambaError("invalid_config", `--${part} ${problem}: ${given} given`);
  }
  // With a client of its own that a folder needs nothing of.
  const { ensureModel } = await import("../hub/pull.ts");
  return ensureModel({ id, part, hub: readHubSettings(), onProgress: progressOn(terminal) }).catch((error) => {
    throw explain(error, given);
  });
}

/** `densemamba pull`: the newest files of a revision, whatever the cache has; their folder on stdout. */
export async function pull(name: string, terminal: Terminal): Promise<void> {
  const id = requireModelId(name);
  const { pullModel } = await import("../hub/pull.ts");
  const dir = await pullModel({ id, part: "model", hub: readHubSettings(), onProgress: progressOn(terminal) });
  await write(terminal.stdout, `${dir}\n`);
}

function requireModelId(name: string): ModelId {
  const id = parseModelId(name);
  if (id !== undefined) return id;
  throw new DenseMambaError(
    "invalid_value",
    `a model on the hub is named org/name or org/name@revision, ${JSON.stringify(name)} given`,
  );
}

function progressOn(terminal: Terminal) {
  return showProgress(terminal.stderr, () => performance.now());
}

/** A name with a slash may have been meant as a path. */
function explain(error: unknown, given: string): unknown {
  if (!(error instanceof DenseMambaError)) return error;
  return new DenseMambaError(error.code, `there is no folder ${given} here, and ${error.message}`, { cause: error });
}
