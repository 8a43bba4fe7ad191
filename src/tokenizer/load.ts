/** Opens a checkpoint's tokenizer. */
import { stat } from "node:fs/promises";
import { dirname, extname } from "node:path";
import type { LibraryChoice } from "./encoder.ts";
import { readTextFiles, readTokenizerFiles, readWorldFiles } from "./files.ts";
import { ModelTokenizer } from "./model-tokenizer.ts";
import { openWorld } from "./world-tokenizer.ts";

/**
 * @param model its folder, a file in it, or one of RWKV's vocabularies
 * @returns undefined if the folder has neither a tokenizer.json nor such a vocabulary
 * @throws `invalid_checkpoint` if a file is malformed or uses what is not implemented
 */
export async function loadTokenizer(
  model: string,
  { library = "auto" }: { readonly library?: LibraryChoice } = {},
): Promise<ModelTokenizer | undefined> {
  const isFile = (await stat(model).catch(() => undefined))?.isFile() ?? false;
  const isVocabulary = isFile && extname(model) === ".txt";
  const folder = isFile ? dirname(model) : model;
  const files = isVocabulary ? undefined : await readTokenizerFiles(folder);
  if (files !== undefined) return ModelTokenizer.open(files, library);
  const world = await (isVocabulary ? readTextFiles(model) : readWorldFiles(folder));
  return world && openWorld(world);
}
