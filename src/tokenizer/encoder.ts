/**
 * Text → ids by one of two libraries, in processes of their own: short texts do not wait for long ones, nor those for what cannot be
 * cut, and a library that crashes does not take our process with it.
 */
import { availableParallelism } from "node:os";
import { DenseMambaError } from "../errors.ts";
import { EncoderPool } from "./encoder-pool.ts";
import { EncoderProcess, type EncoderSource, type EncodingLibrary } from "./encoder-process.ts";
import type { TokenizerFiles } from "./files.ts";
import { checkScriptSupport, checkScriptText } from "./script-support.ts";

export type LibraryChoice = EncoderSource["library"];

/** Takes some hundred milliseconds to encode. */
const MAX_SHORT_LENGTH = 64 * 1024;
/** A process costs some 60 MiB. */
const CORES_PER_PROCESS = 4;
const TIMEOUT_MS = 30_000;
const IDLE_MS = 30_000;

interface Pools {
  readonly short: EncoderPool;
  /** For long texts' parts, if they are short. */
  readonly long: EncoderPool;
  /** For parts that are long, which take seconds: nothing in them can be cut. */
  readonly uncut: EncoderPool;
}

export class Encoder {
  readonly library: EncodingLibrary;
  readonly #pools: Pools;

  private constructor(library: EncodingLibrary, pools: Pools) {
    this.library = library;
    this.#pools = pools;
  }

  /** @throws `invalid_checkpoint` if the library refuses the file, does not survive it, or would read it otherwise. */
  static async open(files: TokenizerFiles, library: LibraryChoice): Promise<Encoder> {
    const { path, text, json } = files;
    const first = await EncoderProcess.start({ path, text, library, addedTokens: json.added_tokens });
    const maxProcesses = Math.max(1, Math.floor(availableParallelism() / CORES_PER_PROCESS));
    const start = () => EncoderProcess.start({ path, text, library: first.library, addedTokens: json.added_tokens });
    const short = new EncoderPool({ start, first, maxProcesses, timeoutMs: TIMEOUT_MS });
    try {
      if (first.library === "script") checkScriptSupport(files);
      await tryOut(short, files);
    } catch (error) {
      short.close(new Error("the tokenizer was refused"));
      throw error;
    }
    const onDemand = () => new EncoderPool({ start, maxProcesses, timeoutMs: TIMEOUT_MS, idleMs: IDLE_MS });
    return new Encoder(first.library, { short, long: onDemand(), uncut: onDemand() });
  }

  /** @param textLength of the whole text: decides whether `part` waits with short or with long ones */
  async encode(part: string, { textLength, signal }: { readonly textLength: number; readonly signal?: AbortSignal }) {
    if (this.library === "script") checkScriptText(part);
    const { short, long, uncut } = this.#pools;
    const pool = part.length > MAX_SHORT_LENGTH ? uncut : textLength > MAX_SHORT_LENGTH ? long : short;
    return pool.encode(part, signal);
  }
}

/**
 * Most faults that crash a library show at the first text. Regular expressions that backtrack without end show at long
 * runs of the characters that they mention.
 */
async function tryOut(pool: EncoderPool, { json }: TokenizerFiles): Promise<void> {
  const spoken = new Set(` \n\taA1é.${JSON.stringify([json.normalizer, json.pre_tokenizer]).slice(0, 4096)}`);
  const runs = Array.from(spoken, (character) => `${character.repeat(40)}\u0001`).join("");
  for (const text of ["", "a", "Hello, world 123\n", runs]) {
    await pool.encode(text).catch((error: unknown) => {
      // A tokenizer without an unknown token has no ids for some texts.
      if (error instanceof DenseMambaError && error.code === "invalid_value") return;
      throw error instanceof DenseMambaError
        ? new DenseMambaError("invalid_checkpoint", `${error.message}, encoding ${JSON.stringify(text.slice(0, 20))}`, {
            cause: error,
          })
        : error;
    });
  }
}
