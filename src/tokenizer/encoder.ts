/**
 * Text → ids by one of two libraries with the same results: the native one works off the event loop; the JavaScript one,
 * for platforms without a prebuilt binary, does not. Neither adds special tokens here.
 */
import { createRequire } from "node:module";
import { Tokenizer as ScriptTokenizer } from "@huggingface/tokenizers";
import { DenseMambaError } from "../errors.ts";
import type { TokenizerFiles } from "./files.ts";

export interface Encoder {
  readonly library: "native" | "script";
  encode(text: string): Promise<number[]>;
}

/** `auto`: the native library where it loads, the JavaScript one elsewhere. */
export type EncodingLibrary = "auto" | Encoder["library"];

type NativeLibrary = typeof import("tokenizers");

/** @throws `invalid_checkpoint` if the library refuses the file. */
export function openEncoder(files: TokenizerFiles, library: EncodingLibrary): Encoder {
  const native = library === "script" ? undefined : loadNative(library === "native");
  try {
    return native ? openNative(native, files) : openScript(files);
  } catch (error) {
    throw new DenseMambaError("invalid_checkpoint", `${files.path} is refused: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** Required at run time, because on a platform without a prebuilt binary loading throws. */
function loadNative(isRequired: boolean): NativeLibrary | undefined {
  try {
    return createRequire(import.meta.url)("tokenizers") as NativeLibrary;
  } catch (error) {
    if (isRequired) throw error;
    return undefined;
  }
}

function openNative(library: NativeLibrary, files: TokenizerFiles): Encoder {
  const tokenizer = library.Tokenizer.fromString(files.text);
  // Some files still carry the settings of the training run; they would cut or pad prompts silently.
  tokenizer.disableTruncation();
  tokenizer.disablePadding();
  return {
    library: "native",
    async encode(text) {
      const encoding = await tokenizer.encode(text, null, { addSpecialTokens: false });
      return encoding.getIds();
    },
  };
}

function openScript(files: TokenizerFiles): Encoder {
  const tokenizer = new ScriptTokenizer(files.json, {});
  return {
    library: "script",
    // NOTE: blocks the event loop, about 10 µs a character.
    encode: async (text) => tokenizer.encode(text, { add_special_tokens: false }).ids,
  };
}
