/**
 * Reading no prompt twice, without being asked: a prompt goes on from the longest beginning of it that was read before,
 * and leaves states for the next one. Between prompts and engine; knows no text, and no store but the cache.
 *
 * States are left in front of a prompt's last token (so that the same prompt again still gives logits), where it parts
 * from a prompt seen before (what several share, such as a system prompt, is worth a state of its own), at the end of a
 * chat's instructions, and at the end of the answer.
 */
import { createHash } from "node:crypto";
import type { Checkpoints, ResumePoint } from "../engine/sequence.ts";
import type { PrefixCache } from "../session/prefix-cache.ts";
import type { PreparedPrompt } from "./prompts.ts";

/** Shorter prefixes are read again: that takes no longer than finding them. */
export const MIN_PREFIX_TOKENS = 16;
/**
 * To leave a state within a prompt its reading is cut in two, which costs about as much as to decode one token. So it is
 * left only where so many tokens were read since the last one: for 64 that is some percent of the time to the first token.
 */
export const MIN_CUT_TOKENS = 64;

export type PrefixStates = Pick<PrefixCache, "lookup" | "insert" | "shared">;

export class PrefixReuse {
  readonly #cache: PrefixStates;
  readonly #scope: string;

  /** @param salt requests of another salt share nothing with these */
  constructor(cache: PrefixStates, salt: string) {
    this.#cache = cache;
    // A salt is a tenant's secret: it does not go into the keys of stores as it is.
    this.#scope = createHash("sha256").update(salt).digest("hex").slice(0, 32);
  }

  /** The prompt, going on from what was read before if there is something. One that goes on from a session stays. */
  async resume(prompt: PreparedPrompt): Promise<PreparedPrompt> {
    const { tokenIds } = prompt;
    if (prompt.resume !== undefined || tokenIds.length <= MIN_PREFIX_TOKENS) return prompt;
    const numShared = this.#cache.shared(this.#scope, tokenIds);
    // At least one token must be read: its logits are where the answer begins.
    const found = await this.#cache.lookup(this.#scope, tokenIds, { maxLength: tokenIds.length - 1 });
    const start = found?.length ?? 0;
    const junctions =
      found === undefined && prompt.findJunction ? [numShared, await prompt.findJunction()] : [numShared];
    const checkpoints = this.#checkpoints(tokenIds, start, junctions);
    if (found === undefined) return { ...prompt, checkpoints };
    const resume = { tokenIds: tokenIds.slice(0, start), position: start, state: found.state };
    return { ...prompt, checkpoints, resume, promptIds: tokenIds.slice(start), cachedTokens: start };
  }

  /** Whether the end of the answer to this prompt is worth a state. */
  wantsEnd({ numTokens }: PreparedPrompt): boolean {
    return numTokens > MIN_PREFIX_TOKENS;
  }

  /** @param end at the end of an answer; its state is kept as it is, not copied */
  keepEnd({ tokenIds, position, state }: ResumePoint): void {
    this.#insert(tokenIds.slice(0, position), state);
  }

  #checkpoints(tokenIds: readonly number[], start: number, junctions: readonly number[]): Checkpoints {
    const last = tokenIds.length - 1;
    const positions: number[] = [];
    let previous = start;
    for (const position of [...[...junctions].sort((a, b) => a - b), last]) {
      if (position - previous < MIN_CUT_TOKENS || position > last) continue;
      positions.push(position);
      previous = position;
    }
    return { positions, take: (position, state) => this.#insert(tokenIds.slice(0, position), state) };
  }

  /** Nobody waits for it: what cannot be kept is read again next time. */
  #insert(tokenIds: readonly number[], state: Uint8Array): void {
    this.#cache.insert(this.#scope, tokenIds, state).catch(() => undefined);
  }
}
