/** Opens the tokenizer that lies beside a checkpoint. */
import { openEncoder } from "./encoder.ts";
import { readTokenizerFiles } from "./files.ts";
import { ModelTokenizer } from "./model-tokenizer.ts";

export interface LoadTokenizerOptions {
  /** `auto`: the native library where it loads, the JavaScript one elsewhere. */
  readonly library?: "auto" | "native" | "script";
}

/**
 * @returns undefined when the folder has no tokenizer.json.
 * @throws `invalid_checkpoint` if a file is malformed or asks for something that we do not implement.
 */
export async function loadTokenizer(
  modelDir: string,
  { library = "auto" }: LoadTokenizerOptions = {},
): Promise<ModelTokenizer | undefined> {
  const files = await readTokenizerFiles(modelDir);
  return files && new ModelTokenizer(files, openEncoder(files, library));
}
