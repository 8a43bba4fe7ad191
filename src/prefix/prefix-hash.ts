/**
 * Names for prefixes of token ids: sha256, so that nobody can make two prompts with one name and be given the other's
 * state. One pass over the ids names any number of prefixes.
 */
import { createHash } from "node:crypto";
import { tokenBytes } from "../sessions/stores/token-bytes.ts";

/** Of hexadecimal digits: 128 bits. */
const NAME_LENGTH = 32;

/** The prefixes of one prompt, under one model and scope. */
export class PrefixHasher {
  readonly #seed: string;
  readonly #bytes: Uint8Array;

  /** @param seed whatever else the names depend on. `tokenIds` are copied. */
  constructor(seed: string, tokenIds: readonly number[]) {
    this.#seed = seed;
    this.#bytes = tokenBytes(tokenIds);
  }

  /**
   * @param lengths ascending, none beyond the ids
   * @returns a name for the prefix of each length
   */
  names(lengths: readonly number[]): string[] {
    const hash = createHash("sha256").update(this.#seed).update("\0");
    let at = 0;
    return lengths.map((length) => {
      hash.update(this.#bytes.subarray(at * 4, length * 4));
      at = length;
      return hash.copy().digest("hex").slice(0, NAME_LENGTH);
    });
  }
}
