/**
 * Reading no prompt twice, without being asked: a prompt continues from the longest beginning of it that was read before,
 * and leaves states for the next one. Between prompts and engine; knows no text, and no store but the cache.
 *
 * States are left in front of a prompt's last token (so that the same prompt again still gives logits), where it parts
 * from a prompt seen before (what several share, such as a system prompt, is worth a state of its own), at the end of a
 * chat's instructions, and at the end of the answer.
 */
import { createHash } from "node:crypto";
import type { Checkpoints, ResumePoint } from "../engine/sequence.ts";
import type { PromptReader } from "./pending-prefixes.ts";
import type { PrefixCache } from "./prefix-cache.ts";

/** Shorter prefixes are read again: that takes no longer than finding them. */
export const MIN_PREFIX_TOKENS = 16;
/**
 * To leave a state within a prompt its reading is cut in two, which costs about as much as to decode one token. So it is
 * left only where so many tokens were read since the last one: for 64 that is some percent of the time to the first token.
 */
export const MIN_CUT_TOKENS = 64;

/** Requests that differ in either share nothing. */
export interface PrefixSharers {
  /** "" or hexadecimal. */
  readonly owner: string;
  readonly salt: string;
}

/** What it reads and writes of a prompt; `generation/prompts.ts` has all of it. */
export interface ReusingPrompt {
  readonly tokenIds: readonly number[];
  readonly numTokens: number;
  readonly promptIds: readonly number[];
  readonly cachedTokens: number;
  readonly resume?: ResumePoint;
  readonly checkpoints?: Checkpoints;
  readonly findJunction?: () => Promise<number>;
}

export type PrefixStates = Pick<PrefixCache, "lookup" | "insert" | "shared">;

export class PrefixReuse {
  readonly #cache: PrefixStates;
  readonly #reader: PromptReader;
  readonly #scope: string;

  constructor(cache: PrefixStates, reader: PromptReader, sharers: PrefixSharers) {
    this.#cache = cache;
    this.#reader = reader;
    this.#scope = scopeOf(sharers);
  }

  /**
   * The prompt, continuing from what was read before if there is something, or is being read just now: then that is waited
   * for. One that continues from a session stays.
   */
  async resume<P extends ReusingPrompt>(prompt: P, signal: AbortSignal): Promise<P> {
    if (prompt.resume !== undefined || prompt.numTokens <= MIN_PREFIX_TOKENS) return prompt;
    const { tokenIds } = prompt;
    const { planned, settle } = await this.#reader.enter(this.#scope, tokenIds, signal, () => this.#plan(prompt));
    const { found, lengths } = planned;
    const take = async (length: number, state: Uint8Array) => {
      await this.#insert(tokenIds.slice(0, length), state);
      settle(length, true);
    };
    const checkpoints: Checkpoints = { positions: lengths, take: (length, state) => void take(length, state) };
    if (found === undefined) return { ...prompt, checkpoints };
    const start = found.length;
    const resume = { tokenIds: tokenIds.slice(0, start), position: start, state: found.state };
    return { ...prompt, checkpoints, resume, promptIds: tokenIds.slice(start), cachedTokens: start };
  }

  /** The request is over: nobody need wait for its states any more. */
  end(): void {
    this.#reader.end();
  }

  /** Whether the end of the answer to this prompt is worth a state. */
  wantsEnd({ numTokens }: ReusingPrompt): boolean {
    return numTokens > MIN_PREFIX_TOKENS;
  }

  /** @param end at the end of an answer; its state is kept as it is, not copied */
  keepEnd({ tokenIds, position, state }: ResumePoint): void {
    void this.#insert(tokenIds.slice(0, position), state);
  }

  /** What the prompt continues from, and at which lengths it leaves states. */
  async #plan({ tokenIds, findJunction }: ReusingPrompt) {
    const numShared = this.#cache.shared(this.#scope, tokenIds);
    // At least one token must be read: its logits are where the answer begins.
    const found = await this.#cache.lookup(this.#scope, tokenIds, { maxLength: tokenIds.length - 1 });
    const junctions = found === undefined && findJunction ? [numShared, await findJunction()] : [numShared];
    return { found, lengths: cuts(found?.length ?? 0, junctions, tokenIds.length - 1) };
  }

  /** Nobody waits for it but prompts that begin alike: what cannot be kept is read again next time. */
  async #insert(tokenIds: readonly number[], state: Uint8Array): Promise<void> {
    await this.#cache.insert(this.#scope, tokenIds, state).catch(() => undefined);
  }
}

/** A salt is a tenant's secret: it does not go into the keys of stores as it is. */
function scopeOf({ owner, salt }: PrefixSharers): string {
  return createHash("sha256").update(`${owner}:${salt}`).digest("hex").slice(0, 32);
}

/** Those of the junctions, and the last token but one, that are far enough behind each other. Ascending. */
function cuts(start: number, junctions: readonly number[], last: number): number[] {
  const lengths: number[] = [];
  let previous = start;
  for (const length of [...[...junctions].sort((a, b) => a - b), last]) {
    if (length - previous < MIN_CUT_TOKENS || length > last) continue;
    lengths.push(length);
    previous = length;
  }
  return lengths;
}
