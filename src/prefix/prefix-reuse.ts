/**
 * Reads no prompt twice: a prompt resumes from its longest cached prefix and caches states for the
 * next one. Between prompts and the engine; knows no text, and no store except the cache.
 *
 * States are cached before a prompt's last token (the same prompt again must still give logits),
 * where it branches off from an earlier prompt (what several share, such as a system prompt, is
 * worth a state), at the end of a chat's instructions, and at the end of the answer.
 */
import { createHash } from "node:crypto";
import type { Checkpoints, ResumePoint } from "../engine/sequence.ts";
import type { RequestPrefixes } from "./pending-prefixes.ts";
import type { PrefixCache } from "./prefix-cache.ts";

/** Shorter prefixes are read again: that takes no longer than to find them. */
export const MIN_PREFIX_TOKENS = 16;
/**
 * Tokens between two checkpoints. A checkpoint splits the prefill, which costs about as much as to
 * decode one token: for 64 tokens that is some percent of the time to the first token.
 */
export const MIN_CHECKPOINT_TOKENS = 64;

/** Requests that differ in either share nothing. */
export interface PrefixScope {
  /** "" or hexadecimal. */
  readonly owner: string;
  readonly salt: string;
}

/** What is read and written of a prompt; `generation/prompts.ts` has all of it. */
export interface ReusablePrompt {
  readonly tokenIds: readonly number[];
  readonly numTokens: number;
  readonly promptIds: readonly number[];
  readonly cachedTokens: number;
  readonly resume?: ResumePoint;
  readonly checkpoints?: Checkpoints;
  readonly findBranchPoint?: () => Promise<number>;
}

export type PrefixStates = Pick<PrefixCache, "lookup" | "insert" | "sharedLength">;

/** For one request. */
export class PrefixReuse {
  readonly #cache: PrefixStates;
  readonly #prefixes: RequestPrefixes;
  readonly #scope: string;

  constructor(cache: PrefixStates, prefixes: RequestPrefixes, scope: PrefixScope) {
    this.#cache = cache;
    this.#prefixes = prefixes;
    this.#scope = hashScope(scope);
  }

  /**
   * The prompt, resumed from its longest cached prefix, if there is one. Waits for a prefix that
   * another request is reading. A prompt that continues a session is returned as it is.
   */
  async resume<Prompt extends ReusablePrompt>(prompt: Prompt, signal: AbortSignal): Promise<Prompt> {
    if (prompt.resume !== undefined || prompt.numTokens <= MIN_PREFIX_TOKENS) return prompt;
    const { tokenIds } = prompt;
    const { plan, resolve } = await this.#prefixes.enter(this.#scope, tokenIds, signal, () => this.#plan(prompt));
    const { hit, lengths } = plan;
    const take = async (length: number, state: Uint8Array) => {
      await this.#insert(tokenIds.slice(0, length), state);
      resolve(length);
    };
    const checkpoints: Checkpoints = { positions: lengths, take: (length, state) => void take(length, state) };
    if (hit === undefined) return { ...prompt, checkpoints };
    const { length, state } = hit;
    const resume = { tokenIds: tokenIds.slice(0, length), position: length, state };
    return { ...prompt, checkpoints, resume, promptIds: tokenIds.slice(length), cachedTokens: length };
  }

  /** The request is over: others need not wait for its states. */
  end(): void {
    this.#prefixes.close();
  }

  /** Whether the state at the end of the answer is worth caching. */
  wantsEnd({ numTokens }: ReusablePrompt): boolean {
    return numTokens > MIN_PREFIX_TOKENS;
  }

  /** @param end of an answer; its state is not copied */
  cacheEnd({ tokenIds, position, state }: ResumePoint): void {
    void this.#insert(tokenIds.slice(0, position), state);
  }

  async #plan({ tokenIds, findBranchPoint }: ReusablePrompt) {
    const sharedLength = this.#cache.sharedLength(this.#scope, tokenIds);
    // At least one token must be read: its logits give the first token of the answer.
    const maxLength = tokenIds.length - 1;
    const hit = await this.#cache.lookup(this.#scope, tokenIds, { maxLength });
    const branchPoints =
      hit === undefined && findBranchPoint ? [sharedLength, await findBranchPoint()] : [sharedLength];
    return { hit, lengths: checkpointPositions(hit?.length ?? 0, branchPoints, maxLength) };
  }

  /** A failure is ignored: what is not cached is read again next time. */
  async #insert(tokenIds: readonly number[], state: Uint8Array): Promise<void> {
    await this.#cache.insert(this.#scope, tokenIds, state).catch(() => undefined);
  }
}

/** Hashed because a salt is a tenant's secret, and the scope becomes part of the store's keys. */
function hashScope({ owner, salt }: PrefixScope): string {
  return createHash("sha256").update(`${owner}:${salt}`).digest("hex").slice(0, 32);
}

/** The branch points and `last` that are far enough apart. Ascending. */
function checkpointPositions(start: number, branchPoints: readonly number[], last: number): number[] {
  const positions: number[] = [];
  let previous = start;
  for (const position of [...[...branchPoints].sort((a, b) => a - b), last]) {
    if (position - previous < MIN_CHECKPOINT_TOKENS || position > last) continue;
    positions.push(position);
    previous = position;
  }
  return positions;
}
