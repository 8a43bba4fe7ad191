/** The personas that a server is started with. */
import { readFile } from "node:fs/promises";
import type { Config } from "../config/schema.ts";
import { DenseMambaError } from "../errors.ts";
import type { Manifest } from "../model/artifact.ts";
import type { Log } from "../server/deps.ts";
import type { ConversationSnapshot } from "../sessions/conversation.ts";
import { readPersona } from "../sessions/personas.ts";

/**
 * @param isOnly whether there is no other model that a file could be of: then each must be of this
 * one
 * @throws `invalid_config`
 */
export async function loadPersonas(
  { personas, maxPromptTokens, maxOutputTokens }: Pick<Config, "personas" | "maxPromptTokens" | "maxOutputTokens">,
  manifest: Manifest,
  { isOnly, log, nowMs }: { readonly isOnly: boolean; readonly log: Log; readonly nowMs: () => number },
): Promise<ReadonlyMap<string, ConversationSnapshot>> {
  const maxUnreadTokens = Math.max(maxPromptTokens, maxOutputTokens);
  const loaded = new Map<string, ConversationSnapshot>();
  for (const { name, path } of personas) {
    try {
      if (loaded.has(name)) throw new Error("another persona has this name");
      loaded.set(name, await readPersona(await readFile(path), name, { manifest, maxUnreadTokens }, nowMs()));
    } catch (error) {
      const { message } = error as Error;
      if (isOnly) {
        throw new DenseMambaError("invalid_config", `--persona ${name}=${path}: ${message}`, { cause: error });
      }
      log.warn({ persona: name, model: manifest.name, error: message }, "a persona is not one of this model");
    }
  }
  return loaded;
}
