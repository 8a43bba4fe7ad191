/** Opens a checkpoint's tokenizer. */
import type { LibraryChoice } from "./encoder.ts";
import { readTokenizerFiles } from "./files.ts";
import { ModelTokenizer } from "./model-tokenizer.ts";

/**
 * @returns undefined if the folder has no tokenizer.json
 * @throws `invalid_checkpoint` if a file is malformed or uses what is not implemented
 */
export async function loadTokenizer(
  modelDir: string,
  { library = "auto" }: { readonly library?: LibraryChoice } = {},
): Promise<ModelTokenizer | undefined> {
  const files = await readTokenizerFiles(modelDir);
  return files && ModelTokenizer.open(files, library);
}
