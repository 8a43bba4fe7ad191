/**
 * What a Valkey server cannot forget by itself: parts of pasts that nothing names any more, because what named them was
 * replaced, deleted, evicted or has expired; and records of claims and revisions that have ended. Each replica looks now and then.
 */
import type { Redis } from "ioredis";
import { DenseMambaError } from "../../errors.ts";
import { headerOf, MAX_HEADER_BYTES, type SnapshotHeader } from "./codec.ts";
import type { ValkeyConnection } from "./valkey-connection.ts";
import { FORGET } from "./valkey-scripts.ts";

const INTERVAL_MS = 3_600_000;
const BATCH = 500;
/** How long a claim's fence is remembered after it has lapsed. */
const REMEMBER_CLAIM_MS = 86_400_000;

export interface ValkeySweeperOptions {
  readonly connection: ValkeyConnection;
  readonly statePrefix: string;
  readonly claimsKey: string;
  readonly revisionsKey: string;
  readonly nowMs: () => number;
}

export class ValkeySweeper {
  readonly #options: ValkeySweeperOptions;
  #lastAtMs: number;
  #isSweeping = false;
  /** Parts that nothing named at the last sweep: a request may have been about to. */
  #unnamed: ReadonlySet<string> = new Set();

  constructor(options: ValkeySweeperOptions) {
    this.#options = options;
    this.#lastAtMs = options.nowMs();
  }

  isDue(): boolean {
    return !this.#isSweeping && Math.abs(this.#options.nowMs() - this.#lastAtMs) >= INTERVAL_MS;
  }

  /** @throws `store_unavailable` */
  async sweep(): Promise<void> {
    this.#lastAtMs = this.#options.nowMs();
    this.#isSweeping = true;
    try {
      await this.#dropParts();
      const { claimsKey, revisionsKey } = this.#options;
      await this.#dropRecords(revisionsKey, 0);
      await this.#dropRecords(claimsKey, REMEMBER_CLAIM_MS);
    } finally {
      this.#isSweeping = false;
    }
  }

  /** Those that nothing names now, nor did an hour ago. */
  async #dropParts(): Promise<void> {
    const { statePrefix } = this.#options;
    const pastOf = new Map<string, string | undefined>();
    const named = new Set<string>();
    for await (const names of this.#names(`${escapeGlob(statePrefix)}*`)) {
      const headers = await Promise.all(names.map((name) => this.#header(name)));
      for (const [i, header] of headers.entries()) {
        if (header === undefined) continue;
        if (header.isPart) pastOf.set(names[i]!.slice(statePrefix.length), header.pastKey);
        else if (header.pastKey !== undefined) named.add(header.pastKey);
      }
    }
    // As a set grows while it is iterated, all that is named in turn is seen.
    for (const key of named) {
      const past = pastOf.get(key);
      if (past !== undefined) named.add(past);
    }
    const unnamed = [...pastOf.keys()].filter((key) => !named.has(key));
    const outdated = unnamed.filter((key) => this.#unnamed.has(key));
    this.#unnamed = new Set(unnamed);
    for (const keys of batches(outdated)) {
      await this.#ask((redis) => redis.unlink(...keys.map((key) => statePrefix + key)));
    }
  }

  /** Removes records of a hash that ended more than `graceMs` ago. */
  async #dropRecords(key: string, graceMs: number): Promise<void> {
    const time: unknown = await this.#ask((redis) => redis.time());
    const nowMs = Array.isArray(time) ? Number(time[0]) * 1000 : Number.NaN;
    let cursor = "0";
    do {
      const reply: unknown = await this.#ask((redis) => redis.hscan(key, cursor, "COUNT", BATCH));
      const [next, pairs] = scanReply(reply);
      const ended = pairs.flatMap((record, i) => {
        const [, untilMs] = i % 2 === 1 ? (/:(\d+)$/.exec(record) ?? []) : [];
        return untilMs !== undefined && Number(untilMs) + graceMs < nowMs ? [pairs[i - 1]!, record] : [];
      });
      if (ended.length > 0) await this.#ask((redis) => redis.eval(FORGET, 1, key, ...ended));
      cursor = next;
    } while (cursor !== "0");
  }

  async *#names(pattern: string): AsyncGenerator<string[]> {
    let cursor = "0";
    do {
      const reply: unknown = await this.#ask((redis) => redis.scan(cursor, "MATCH", pattern, "COUNT", BATCH));
      const [next, names] = scanReply(reply);
      yield names;
      cursor = next;
    } while (cursor !== "0");
  }

  async #header(name: string): Promise<SnapshotHeader | undefined> {
    const first: unknown = await this.#ask((redis) => redis.getrangeBuffer(name, 0, MAX_HEADER_BYTES - 1));
    return Buffer.isBuffer(first) ? headerIn(first) : undefined;
  }

  #ask<T>(command: (redis: Redis) => Promise<T>): Promise<T> {
    return this.#options.connection.ask(command);
  }
}

/** @returns undefined if no snapshot of this format version begins so */
export function headerIn(first: Buffer): SnapshotHeader | undefined {
  try {
    return headerOf(first);
  } catch {
    return undefined;
  }
}

function scanReply(reply: unknown): [string, string[]] {
  const [cursor, found] = Array.isArray(reply) ? (reply as unknown[]) : [];
  if (typeof cursor === "string" && Array.isArray(found)) return [cursor, found.map(String)];
  throw new DenseMambaError("store_unavailable", "the Valkey server answered a scan with something else");
}

function batches(keys: readonly string[]): string[][] {
  return Array.from({ length: Math.ceil(keys.length / BATCH) }, (_, i) => keys.slice(i * BATCH, (i + 1) * BATCH));
}

export function escapeGlob(text: string): string {
  return text.replaceAll(/[*?[\]\\^]/g, "\\$&");
}
