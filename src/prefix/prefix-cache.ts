/**
 * States kept at prefixes of prompts, found again by the token ids alone: the longest one that a new prompt begins with.
 * Everything lies in the store, nothing but the junction finder in this process, so that a restarted server and other
 * replicas find what was kept.
 *
 * States may be kept at any length, and not every length can be asked for. So prompts have *anchors*, prefixes of fixed
 * lengths, dense at first and sparser further on. A record under an anchor's name lists the lengths, up to the next
 * anchor, at which states were kept behind it. A lookup reads the records of all anchors that a prompt passes, and then
 * asks for the few lengths they list. All costs one hash over the prompt and two rounds to the store.
 */
import { createHash } from "node:crypto";
import { DenseMambaError } from "../errors.ts";
import type { SnapshotModel } from "../sessions/stores/codec.ts";
import type { Snapshot, StateStore } from "../sessions/stores/store.ts";
import { PrefixHasher } from "./prefix-hash.ts";
import { RecentPrompts } from "./recent-prompts.ts";

/** Up to `end` tokens an anchor stands at every `every` tokens: under 300 for 100,000 tokens. */
const ANCHORS = [
  { every: 64, end: 4096 },
  { every: 256, end: 16_384 },
  { every: 1024, end: Number.POSITIVE_INFINITY },
] as const;
/** Lengths that are asked for at once. */
const PROBES_AT_ONCE = 32;
/** A lookup asks for no more than this many; each is a round to the store if there are several replicas. */
const MAX_PROBES = 512;
const NO_STATE = new Uint8Array(0);

export interface PrefixHit {
  /** Tokens that the state has read. */
  readonly length: number;
  /** Belongs to the store: not to be changed. */
  readonly state: Uint8Array;
}

export interface PrefixCacheStats {
  readonly queries: number;
  readonly hits: number;
  /** Tokens asked for, and found. */
  readonly queryTokens: number;
  readonly hitTokens: number;
  readonly bytes: number;
}

export interface PrefixCacheOptions {
  /** Its own: what is kept here may be as much as anybody cares to send, and would push out what must stay. */
  readonly store: StateStore;
  readonly model: SnapshotModel;
  readonly nowMs: () => number;
  /** After this long a state is forgotten, used or not. Default: only the store's bound ends it. */
  readonly ttlMs?: number;
  /** Tokens of recent prompts that `shared` remembers, 4 bytes each. Default 4 million. */
  readonly maxRecentTokens?: number;
}

export class PrefixCache {
  readonly #options: PrefixCacheOptions;
  readonly #recent: RecentPrompts;
  /** One at a time changes an anchor's record. */
  readonly #changes = new Map<string, Promise<unknown>>();
  #queries = 0;
  #hits = 0;
  #queryTokens = 0;
  #hitTokens = 0;

  constructor(options: PrefixCacheOptions) {
    this.#options = options;
    this.#recent = new RecentPrompts({ maxTokens: options.maxRecentTokens ?? 4_000_000 });
  }

  /**
   * The longest prefix of `tokenIds` whose state is kept. A store that fails is a miss.
   * @param scope separates those who must not share: a hash of the request's owner and `cache_salt`
   * @param maxLength a longer prefix is of no use to the caller. Default: all of `tokenIds`
   */
  async lookup(
    scope: string,
    tokenIds: readonly number[],
    { maxLength = tokenIds.length }: { readonly maxLength?: number } = {},
  ): Promise<PrefixHit | undefined> {
    this.#queries++;
    this.#queryTokens += tokenIds.length;
    const hit = await missIfStoreFails(() => this.#find(scope, tokenIds, Math.min(maxLength, tokenIds.length)));
    if (hit === undefined) return undefined;
    this.#hits++;
    this.#hitTokens += hit.length;
    return hit;
  }

  /**
   * Keeps the state that has read exactly `tokenIds`. A store that fails keeps nothing.
   * @param state not a copy: not to be changed afterwards
   */
  async insert(scope: string, tokenIds: readonly number[], state: Uint8Array): Promise<void> {
    const length = tokenIds.length;
    if (length === 0) return;
    const { store } = this.#options;
    const seed = this.#seed(scope);
    const anchor = anchorOf(length);
    const [anchorName, name] = new PrefixHasher(seed, tokenIds).names([anchor, length]);
    await missIfStoreFails(async () => {
      const key = stateKey(seed, length, name!);
      if (!(await store.has(key))) await store.put(key, this.#snapshot([], state), this.#expiry(1));
      await this.#register(anchorKey(seed, anchor, anchorName!), length);
    });
  }

  /**
   * How much of the prompt it has in common with any seen lately, whether or not a state is kept there: where a state
   * would serve both. Remembers the prompt, so to be called once for each.
   */
  shared(scope: string, tokenIds: readonly number[]): number {
    return this.#recent.see(scope, tokenIds);
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
    const hasher = new PrefixHasher(seed, tokenIds);
    const anchors = anchorsUpTo(maxLength);
    const names = hasher.names(anchors);
    const records = await Promise.all(anchors.map((anchor, i) => store.get(anchorKey(seed, anchor, names[i]!))));
    const lengths = new Set(records.flatMap((record) => record?.tokenIds ?? []));
    const candidates = [...lengths]
      .filter((length) => length <= maxLength)
      .sort((a, b) => a - b)
      .slice(-MAX_PROBES);
    const keys = hasher.names(candidates).map((name, i) => stateKey(seed, candidates[i]!, name));
    for (let end = keys.length; end > 0; end -= PROBES_AT_ONCE) {
      const first = Math.max(0, end - PROBES_AT_ONCE);
      const found = await Promise.all(keys.slice(first, end).map((key) => store.has(key)));
      for (let i = end - 1; i >= first; i--) {
        const state = found[i - first] ? (await store.get(keys[i]!))?.state : undefined;
        // Evicted between the two questions, or kept by somebody who kept no state.
        if (state?.length === model.stateBytes) return { length: candidates[i]!, state };
      }
    }
    return undefined;
  }

  /** Two replicas that do this at once may lose one length: a miss later on, and then it is kept again. */
  #register(key: string, length: number): Promise<void> {
    const change = (this.#changes.get(key) ?? Promise.resolve())
      .catch(() => undefined)
      .then(() => this.#addLength(key, length))
      .finally(() => {
        if (this.#changes.get(key) === change) this.#changes.delete(key);
      });
    this.#changes.set(key, change);
    return change;
  }

  async #addLength(key: string, length: number): Promise<void> {
    const { store, nowMs, ttlMs = Number.POSITIVE_INFINITY } = this.#options;
    const record = await store.get(key);
    const lengths = new Set(record?.tokenIds);
    const writtenAtMs = typeof record?.conversation === "number" ? record.conversation : Number.NEGATIVE_INFINITY;
    // It is to outlive every state that it lists.
    if (lengths.has(length) && nowMs() - writtenAtMs < ttlMs) return;
    const next = { ...this.#snapshot([...lengths.add(length)], NO_STATE), conversation: nowMs() };
    await store.put(key, next, this.#expiry(2));
  }

  /** Without the prefix itself: its name stands for it. In an anchor's record lengths stand in the place of ids. */
  #snapshot(tokenIds: readonly number[], state: Uint8Array): Snapshot {
    return { modelHash: this.#options.model.modelHash, tokenIds, position: 0, state, conversation: undefined };
  }

  #expiry(times: number) {
    const { ttlMs, nowMs } = this.#options;
    return { isCache: true, ...(ttlMs !== undefined && { expiresAtMs: nowMs() + times * ttlMs }) };
  }

  #seed(scope: string): string {
    return createHash("sha256").update(`${this.#options.model.modelHash}\0${scope}`).digest("hex").slice(0, 32);
  }
}

function stateKey(seed: string, length: number, name: string): string {
  return `prefix:${seed}:${length}:${name}`;
}

function anchorKey(seed: string, length: number, name: string): string {
  return `prefix-anchor:${seed}:${length}:${name}`;
}

/** The last anchor of a prefix of `length` tokens. */
function anchorOf(length: number): number {
  const { every } = ANCHORS.find(({ end }) => length < end)!;
  return length - (length % every);
}

/** All anchors, ascending, the empty prefix first. */
function anchorsUpTo(length: number): number[] {
  const anchors: number[] = [];
  for (let at = 0; at <= length; at += ANCHORS.find(({ end }) => at < end)!.every) anchors.push(at);
  return anchors;
}

async function missIfStoreFails<T>(act: () => Promise<T>): Promise<T | undefined> {
  try {
    return await act();
  } catch (error) {
    if (error instanceof DenseMambaError) return undefined;
    throw error;
  }
}
