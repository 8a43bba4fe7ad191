/**
 * Reads no prompt twice: a prompt resumes from its longest cached prefix and caches states for the
 * next one. Between prompts and the engine; knows no text, and no store except the cache.
 *
 * States are cached before a prompt's last token (the same prompt again must still give logits),
 * where it branches off from an earlier prompt (what several share, such as a system prompt, is
 * worth a state), at the end of a chat's instructions, at the end of the answer, and all over a long
 * chat that comes at once, whose messages may be edited.
 */
import { createHash } from "node:crypto";
import type { Checkpoints, ResumePoint } from "../engine/sequence.ts";
import { countTokens } from "../sessions/stores/snapshot.ts";
import type { RequestPrefixes } from "./pending-prefixes.ts";
import type { PrefixCache } from "./prefix-cache.ts";

/** Shorter prefixes are read again: that takes no longer than to find them. */
export const MIN_PREFIX_TOKENS = 16;
/**
 * Tokens between two checkpoints. A checkpoint splits the prefill, which costs about as much as to
 * decode one token: for 64 tokens that is some percent of the time to the first token.
 */
export const MIN_CHECKPOINT_TOKENS = 64;
/** A chat with so many tokens to read is long. */
export const LONG_CHAT_TOKENS = 2048;
/** Checkpoints all over it: where a message of it is edited, at most a part of this is read again. */
const MAX_SPREAD = 40;
/** All of them may take this part of the cache. */
const SPREAD_SHARE = 8;

/** Requests that differ in either share nothing. */
export interface PrefixScope {
  /** "" or hexadecimal. */
  readonly owner: string;
  readonly salt: string;
  /** Of the persona that the prompts continue; undefined: none. Prefixes count from its end. */
  readonly personaHash?: string | undefined;
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
  /** It has messages before the last one, which a client may edit. */
  readonly isEditable?: boolean;
}

export type PrefixStates = Pick<PrefixCache, "lookup" | "insert" | "sharedLength" | "capacity">;

/** For one request. */
export class PrefixReuse {
  readonly #cache: PrefixStates;
  readonly #prefixes: RequestPrefixes;
  readonly #scope: PrefixScope;
  /** The end of the persona that the prompts continue. */
  #start: ResumePoint | undefined;

  constructor(cache: PrefixStates, prefixes: RequestPrefixes, scope: PrefixScope) {
    this.#cache = cache;
    this.#prefixes = prefixes;
    this.#scope = scope;
  }

  /**
   * The prompt, resumed from its longest cached prefix, if there is one. Waits for a prefix that
   * another request is reading. A prompt that continues a session is returned as it is; after a
   * persona, prefixes are of what follows it.
   */
  async resume<Prompt extends ReusablePrompt>(prompt: Prompt, signal: AbortSignal): Promise<Prompt> {
    const { promptIds: tokenIds, resume: start } = prompt;
    if (start !== undefined && this.#scope.personaHash === undefined) return prompt;
    this.#start = start;
    if (tokenIds.length <= MIN_PREFIX_TOKENS) return prompt;
    const numBefore = start === undefined ? 0 : countTokens(start);
    const scope = this.#hash();
    const { plan, resolve } = await this.#prefixes.enter(scope, tokenIds, signal, () => this.#plan(scope, prompt));
    const { hit, lengths } = plan;
    const take = async (length: number, state: Uint8Array) => {
      await this.#insert(tokenIds.slice(0, length), state);
      resolve(length);
    };
    const checkpoints: Checkpoints = {
      positions: lengths.map((length) => numBefore + length),
      take: (position, state) => void take(position - numBefore, state),
    };
    if (hit === undefined) return { ...prompt, checkpoints };
    const { length, state } = hit;
    const position = numBefore + length;
    const resume = { tokenIds: [...(start?.tokenIds ?? []), ...tokenIds.slice(0, length)], position, state };
    return { ...prompt, checkpoints, resume, promptIds: tokenIds.slice(length), cachedTokens: position };
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
    void this.#insert(tokenIds.slice(this.#start?.tokenIds.length ?? 0, position), state);
  }

  async #plan(scope: string, { promptIds: tokenIds, findBranchPoint, isEditable = false }: ReusablePrompt) {
    const sharedLength = this.#cache.sharedLength(scope, tokenIds);
    // At least one token must be read: its logits give the first token of the answer.
    const maxLength = tokenIds.length - 1;
    const hit = await this.#cache.lookup(scope, tokenIds, { maxLength });
    const branchPoints =
      hit === undefined && findBranchPoint ? [sharedLength, await findBranchPoint()] : [sharedLength];
    const start = hit?.length ?? 0;
    const lengths = checkpointPositions(start, branchPoints, maxLength);
    const isLong = isEditable && maxLength - start >= LONG_CHAT_TOKENS;
    const numSpread = isLong ? Math.min(MAX_SPREAD, Math.floor(this.#cache.capacity / SPREAD_SHARE)) : 0;
    return { hit, lengths: spread(start, lengths, numSpread) };
  }

  /** Hashed because a salt is a tenant's secret, and the scope becomes part of the store's keys. */
  #hash(): string {
    const { owner, salt, personaHash } = this.#scope;
    // A persona may have to be read again itself: then the prompt begins with its tokens.
    const after = this.#start === undefined ? "" : `persona ${personaHash}:`;
    return createHash("sha256").update(`${after}${owner}:${salt}`).digest("hex").slice(0, 32);
  }

  /** A failure is ignored: what is not cached is read again next time. */
  async #insert(tokenIds: readonly number[], state: Uint8Array): Promise<void> {
    await this.#cache.insert(this.#hash(), tokenIds, state).catch(() => undefined);
  }
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

/**
 * The positions and so many more, evenly from `start` to the last, where there is none nearby.
 * Ascending.
 */
function spread(start: number, positions: readonly number[], count: number): readonly number[] {
  const last = positions.at(-1) ?? start;
  const all = [...positions];
  for (let i = 1; i < count; i++) {
    const position = start + Math.round((i * (last - start)) / count);
    const isFree = positions.every((other) => Math.abs(other - position) >= MIN_CHECKPOINT_TOKENS / 2);
    if (isFree) all.push(position);
  }
  return all.sort((a, b) => a - b);
}
