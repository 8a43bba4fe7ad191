/**
 * Text → ids by one of two libraries, in processes of their own: a library that crashes does not
 * crash the server. Short texts do not wait for long ones, and neither waits for long parts that
 * cannot be cut.
 */
import { availableParallelism } from "node:os";
import { DenseMambaError } from "../errors.ts";
import { EncoderPool } from "./encoder-pool.ts";
import { EncoderProcess, type EncoderSource, type EncodingLibrary } from "./encoder-process.ts";
import type { TokenizerFiles } from "./files.ts";
import { checkScriptSupport, checkScriptText } from "./script-support.ts";

export type LibraryChoice = EncoderSource["library"];

/** Takes about a hundred milliseconds to encode. */
const MAX_SHORT_LENGTH = 64 * 1024;
/** A process takes about 60 MiB. */
const CORES_PER_PROCESS = 4;
const TIMEOUT_MS = 30_000;
const IDLE_MS = 30_000;

interface Pools {
  readonly short: EncoderPool;
  /** For the short parts of long texts. */
  readonly long: EncoderPool;
  /** For long parts, which cannot be cut and take seconds. */
  readonly uncut: EncoderPool;
}

export class Encoder {
  readonly library: EncodingLibrary;
  readonly #pools: Pools;

  private constructor(library: EncodingLibrary, pools: Pools) {
    this.library = library;
    this.#pools = pools;
  }

  /**
   * @throws `invalid_checkpoint` if the library refuses the file, crashes on it, or would encode
   * differently
   */
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

  /**
   * @param textLength of the whole text: decides whether `part` is queued with short or with long
   * texts
   */
  async encode(part: string, { textLength, signal }: { readonly textLength: number; readonly signal?: AbortSignal }) {
    if (this.library === "script") checkScriptText(part);
    const { short, long, uncut } = this.#pools;
    const pool = part.length > MAX_SHORT_LENGTH ? uncut : textLength > MAX_SHORT_LENGTH ? long : short;
    return pool.encode(part, signal);
  }
}

/**
 * Most faults that crash a library show with the first text. Endless backtracking of regular
 * expressions shows with long runs of the characters that they mention.
 */
async function tryOut(pool: EncoderPool, { json }: TokenizerFiles): Promise<void> {
  const spoken = new Set(` \n\taA1é.${JSON.stringify([json.normalizer, json.pre_tokenizer]).slice(0, 4096)}`);
  const runs = Array.from(spoken, (character) => `${character.repeat(40)}\u0001`).join("");
  for (const text of ["", "a", "Hello, world 123\n", runs]) {
    await pool.encode(text).catch((error: unknown) => {
      // Without an unknown token a tokenizer has no ids for some texts.
      if (error instanceof DenseMambaError && error.code === "invalid_value") return;
      throw error instanceof DenseMambaError
        ? new DenseMambaError("invalid_checkpoint", `${error.message}, encoding ${JSON.stringify(text.slice(0, 20))}`, {
            cause: error,
          })
        : error;
    });
  }
}
