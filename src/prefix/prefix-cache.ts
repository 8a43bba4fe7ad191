/**
 * Caches states at prefixes of prompts and finds the longest one that a new prompt begins with, by
 * token ids alone. Everything is in the store, except for the tree of recent prompts, so that a
 * restarted server and other replicas find what was cached.
 *
 * A state may be cached at any length, and a lookup cannot ask for every length. So there are
 * *anchors*: prefixes of fixed lengths, dense at first and sparser further on. The record of an
 * anchor lists the lengths between it and the next anchor at which states were cached. A lookup
 * reads the records of all anchors of the prompt, then asks for the few lengths that they list: one
 * hash over the prompt and two rounds to the store.
 */
import { createHash } from "node:crypto";
import { DenseMambaError } from "../errors.ts";
import type { SnapshotModel } from "../sessions/stores/codec.ts";
import { type Snapshot, tokensToBytes } from "../sessions/stores/snapshot.ts";
import type { StateStore } from "../sessions/stores/store.ts";
import { RecentPrompts } from "./recent-prompts.ts";

/** Up to `end` tokens there is an anchor every `every` tokens: under 300 for 100,000 tokens. */
const ANCHORS = [
  { every: 64, end: 4096 },
  { every: 256, end: 16_384 },
  { every: 1024, end: Number.POSITIVE_INFINITY },
] as const;
/** Lengths asked for at once. */
const PROBES_AT_ONCE = 32;
/** A lookup asks for at most this many: with several replicas each is a round to the store. */
const MAX_PROBES = 512;
/** Hexadecimal digits of a prefix's name: 128 bits. */
const NAME_LENGTH = 32;
const NO_STATE = new Uint8Array(0);

export interface PrefixHit {
  /** Tokens that the state has read. */
  readonly length: number;
  /** Owned by the store: must not be changed. */
  readonly state: Uint8Array;
}

export interface PrefixCacheStats {
  readonly queries: number;
  readonly hits: number;
  /** Tokens asked for, and tokens found. */
  readonly queryTokens: number;
  readonly hitTokens: number;
  readonly bytes: number;
}

export interface PrefixCacheOptions {
  /** Used by nothing else: anybody can fill it, so it must not push out sessions. */
  readonly store: StateStore;
  readonly model: SnapshotModel;
  readonly nowMs: () => number;
  /** States expire after this time, used or not. Default: only the store's bound ends them. */
  readonly ttlMs?: number;
  /** Tokens of recent prompts to remember, 4 bytes each. Default 4 million. */
  readonly maxRecentTokens?: number;
}

export class PrefixCache {
  readonly #options: PrefixCacheOptions;
  readonly #recentPrompts: RecentPrompts;
  /** The last change of each anchor's record: changes of one record run one after the other. */
  readonly #changes = new Map<string, Promise<unknown>>();
  #queries = 0;
  #hits = 0;
  #queryTokens = 0;
  #hitTokens = 0;

  constructor(options: PrefixCacheOptions) {
    this.#options = options;
    this.#recentPrompts = new RecentPrompts({ maxTokens: options.maxRecentTokens ?? 4_000_000 });
  }

  /**
   * The longest prefix of `tokenIds` whose state is cached. A store failure is a miss.
   * @param scope separates requests that must not share: a hash of owner and `cache_salt`
   * @param maxLength of the prefix. Default: all of `tokenIds`
   */
  async lookup(
    scope: string,
    tokenIds: readonly number[],
    { maxLength = tokenIds.length }: { readonly maxLength?: number } = {},
  ): Promise<PrefixHit | undefined> {
    this.#queries++;
    this.#queryTokens += tokenIds.length;
    const hit = await undefinedIfStoreFails(() => this.#find(scope, tokenIds, Math.min(maxLength, tokenIds.length)));
    if (hit === undefined) return undefined;
    this.#hits++;
    this.#hitTokens += hit.length;
    return hit;
  }

  /**
   * Caches the state that has read exactly `tokenIds`. If the store fails, nothing is cached.
   * @param state not copied: must not be changed afterwards
   */
  async insert(scope: string, tokenIds: readonly number[], state: Uint8Array): Promise<void> {
    const length = tokenIds.length;
    if (length === 0) return;
    const { store } = this.#options;
    const seed = this.#seed(scope);
    const anchor = lastAnchor(length);
    const [anchorName, name] = prefixNames(seed, tokensToBytes(tokenIds), [anchor, length]);
    await undefinedIfStoreFails(async () => {
      const key = stateKey(seed, length, name!);
      if (!(await store.has(key))) await store.put(key, this.#snapshot([], state), this.#putOptions(1));
      await this.#addLength(anchorKey(seed, anchor, anchorName!), length);
    });
  }

  /**
   * The length of the longest prefix that the prompt shares with a recent one, cached or not: a
   * state there would serve both. Remembers the prompt, so call it once for each.
   */
  sharedLength(scope: string, tokenIds: readonly number[]): number {
    return this.#recentPrompts.add(scope, tokenIds);
  }

  /** How many states it holds, roughly. */
  get capacity(): number {
    const { store, model } = this.#options;
    return Math.floor(store.stats().maxBytes / model.stateBytes);
  }

  stats(): PrefixCacheStats {
    return {
      queries: this.#queries,
      hits: this.#hits,
      queryTokens: this.#queryTokens,
      hitTokens: this.#hitTokens,
      bytes: this.#options.store.stats().bytes,
    };
  }

  async #find(scope: string, tokenIds: readonly number[], maxLength: number): Promise<PrefixHit | undefined> {
    const { store, model } = this.#options;
    const seed = this.#seed(scope);
    const bytes = tokensToBytes(tokenIds);
    const anchors = anchorsUpTo(maxLength);
    const anchorKeys = prefixNames(seed, bytes, anchors).map((name, i) => anchorKey(seed, anchors[i]!, name));
    const records = await Promise.all(anchorKeys.map((key) => store.get(key)));
    const lengths = [...new Set(records.flatMap((record) => record?.tokenIds ?? []))]
      .filter((length) => length <= maxLength)
      .sort((a, b) => a - b)
      .slice(-MAX_PROBES);
    const keys = prefixNames(seed, bytes, lengths).map((name, i) => stateKey(seed, lengths[i]!, name));
    for (let end = keys.length; end > 0; end -= PROBES_AT_ONCE) {
      const first = Math.max(0, end - PROBES_AT_ONCE);
      const found = await Promise.all(keys.slice(first, end).map((key) => store.has(key)));
      for (let i = end - 1; i >= first; i--) {
        const state = found[i - first] ? (await store.get(keys[i]!))?.state : undefined;
        // It may have been evicted since `has`, or have been stored without a state.
        if (state?.length === model.stateBytes) return { length: lengths[i]!, state };
      }
    }
    return undefined;
  }

  /** Two replicas may lose one length by doing this at once: a miss later on. */
  #addLength(anchor: string, length: number): Promise<void> {
    const { store, nowMs, ttlMs = Number.POSITIVE_INFINITY } = this.#options;
    const change = (this.#changes.get(anchor) ?? Promise.resolve())
      .catch(() => undefined)
      .then(async () => {
        const record = await store.get(anchor);
        const lengths = new Set(record?.tokenIds);
        const writtenAtMs = typeof record?.conversation === "number" ? record.conversation : Number.NEGATIVE_INFINITY;
        // The record must outlive every state that it lists.
        if (lengths.has(length) && nowMs() - writtenAtMs < ttlMs) return;
        const next = { ...this.#snapshot([...lengths.add(length)], NO_STATE), conversation: nowMs() };
        await store.put(anchor, next, this.#putOptions(2));
      })
      .finally(() => {
        if (this.#changes.get(anchor) === change) this.#changes.delete(anchor);
      });
    this.#changes.set(anchor, change);
    return change;
  }

  /** Without the prefix, which its name identifies. An anchor's record has lengths as ids. */
  #snapshot(tokenIds: readonly number[], state: Uint8Array): Snapshot {
    return { modelHash: this.#options.model.modelHash, tokenIds, position: 0, state, conversation: undefined };
  }

  #putOptions(numTtls: number) {
    const { ttlMs, nowMs } = this.#options;
    return { isCache: true, ...(ttlMs !== undefined && { expiresAtMs: nowMs() + numTtls * ttlMs }) };
  }

  #seed(scope: string): string {
    return createHash("sha256").update(`${this.#options.model.modelHash}\0${scope}`).digest("hex").slice(0, 32);
  }
}

/**
 * A name for the prefix of each length: sha256, so that no client can make two prompts with one
 * name and get the other's state.
 * @param bytes of the token ids, 4 each
 * @param lengths ascending
 */
function prefixNames(seed: string, bytes: Uint8Array, lengths: readonly number[]): string[] {
  const hash = createHash("sha256").update(seed).update("\0");
  let at = 0;
  return lengths.map((length) => {
    hash.update(bytes.subarray(at * 4, length * 4));
    at = length;
    return hash.copy().digest("hex").slice(0, NAME_LENGTH);
  });
}

function stateKey(seed: string, length: number, name: string): string {
  return `prefix:${seed}:${length}:${name}`;
}

function anchorKey(seed: string, length: number, name: string): string {
  return `prefix-anchor:${seed}:${length}:${name}`;
}

/** The last anchor of a prefix of `length` tokens. */
function lastAnchor(length: number): number {
  const { every } = ANCHORS.find(({ end }) => length < end)!;
  return length - (length % every);
}

/** All anchors, ascending, the empty prefix first. */
function anchorsUpTo(length: number): number[] {
  const anchors: number[] = [];
  for (let at = 0; at <= length; at += ANCHORS.find(({ end }) => at < end)!.every) anchors.push(at);
  return anchors;
}

async function undefinedIfStoreFails<T>(act: () => Promise<T>): Promise<T | undefined> {
  try {
    return await act();
  } catch (error) {
    if (error instanceof DenseMambaError) return undefined;
    throw error;
  }
}
