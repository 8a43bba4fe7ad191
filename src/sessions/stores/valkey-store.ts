/**
 * Kept states on a Valkey or Redis server (6.2 or later), shared by all servers that use it with the same prefix of
 * keys. The server's clock ends what expires and what is claimed; its `maxmemory-policy` decides what it evicts.
 */
import { createHash } from "node:crypto";
import type { Redis } from "ioredis";
import type { DenseMambaError } from "../../errors.ts";
import { staleFence } from "./claims.ts";
import { decodeSnapshot, encodeSnapshot, MAX_HEADER_BYTES, type SnapshotModel, type StatePrecision } from "./codec.ts";
import type { Claim, ListedSnapshot, PutOptions, SharedRevision, SharedStore, Snapshot, StoreStats } from "./store.ts";
import { ValkeyConnection } from "./valkey-connection.ts";
import { CLAIM, DELETE, LOOK, PUT, RENEW } from "./valkey-scripts.ts";
import { escapeGlob, headerIn, ValkeySweeper } from "./valkey-sweeper.ts";

const DEFAULT_TIMEOUT_MS = 2000;
const DAY_MS = 86_400_000;
/** How long others are told that a key was deleted, for whom it may still be on a disk. */
const REMEMBER_DELETION_MS = 7 * DAY_MS;
/** Stands in the place of what was deleted. */
const DELETED = "DSMGONE1";
const KEY_TAG_BYTES = 16;
const SCAN_COUNT = 1000;
const TOKEN_BYTES = 4;

export interface ValkeyStoreOptions {
  /** `redis://` or `valkey://`, with a second s for TLS: `[user:password@]host[:port][/db]`. */
  readonly url: string;
  /** All keys on the server begin so; servers with different prefixes know nothing of each other. */
  readonly keyPrefix: string;
  readonly model: SnapshotModel;
  /** Default f32. */
  readonly precision?: StatePrecision;
  readonly nowMs: () => number;
  /** For each question to the server. Default 2000. */
  readonly timeoutMs?: number;
  /** Called if the server is set up so that it may lose states. */
  readonly onWarning?: (message: string) => void;
}

export class ValkeyStore implements SharedStore {
  readonly #options: ValkeyStoreOptions;
  readonly #connection: ValkeyConnection;
  readonly #statePrefix: string;
  readonly #claimsKey: string;
  readonly #revisionsKey: string;
  readonly #sweeper: ValkeySweeper;

  private constructor(options: ValkeyStoreOptions) {
    this.#options = options;
    this.#connection = new ValkeyConnection({ url: options.url, timeoutMs: options.timeoutMs ?? DEFAULT_TIMEOUT_MS });
    this.#statePrefix = `${options.keyPrefix}state:`;
    this.#claimsKey = `${options.keyPrefix}claims`;
    this.#revisionsKey = `${options.keyPrefix}revisions`;
    this.#sweeper = new ValkeySweeper({
      connection: this.#connection,
      statePrefix: this.#statePrefix,
      claimsKey: this.#claimsKey,
      revisionsKey: this.#revisionsKey,
      nowMs: options.nowMs,
    });
  }

  /**
   * Returns once connected, or when that has failed or taken too long: a server that is down may come back.
   * @throws `invalid_config` for a URL that is none
   */
  static async open(options: ValkeyStoreOptions): Promise<ValkeyStore> {
    const store = new ValkeyStore(options);
    await store.#connection.settle();
    await store.#warnOfEviction();
    return store;
  }

  async get(key: string): Promise<Snapshot | undefined> {
    const value: unknown = await this.#ask((redis) => redis.getBuffer(this.#stateKey(key)));
    if (value === null) return undefined;
    if (!Buffer.isBuffer(value)) throw this.#unexpected("GET", value);
    if (isTombstone(value)) return undefined;
    const end = Math.max(0, value.length - KEY_TAG_BYTES);
    // Another key's snapshot is whole, and another user's.
    if (!value.subarray(end).equals(keyTag(key))) {
      throw this.#connection.mistrust(`it answered with something else than what was kept under ${key}`);
    }
    return decodeSnapshot(value.subarray(0, end), this.#options.model);
  }

  async has(key: string): Promise<boolean> {
    const found = await this.revisionOf(key);
    return typeof found === "object" && found.isThere;
  }

  async revisionOf(key: string): Promise<SharedRevision> {
    const reply: unknown = await this.#ask((redis) =>
      redis.callBuffer("EVAL", LOOK, 2, this.#stateKey(key), this.#revisionsKey, MAX_HEADER_BYTES, fieldOf(key)),
    );
    const [first, record] = Array.isArray(reply) ? (reply as unknown[]) : [];
    if (!Buffer.isBuffer(first) || !Buffer.isBuffer(record) || first.length > MAX_HEADER_BYTES) {
      throw this.#unexpected("EVAL", reply);
    }
    if (isTombstone(first)) return "deleted";
    if (first.length > 0) return { revision: revisionIn(first), isThere: true };
    const [, known] = /^(x|\d+)(?::|$)/.exec(record.toString("latin1")) ?? [];
    if (known === undefined) return "unknown";
    return known === "x" ? "deleted" : { revision: Number(known), isThere: false };
  }

  async put(key: string, snapshot: Snapshot, options: PutOptions = {}): Promise<void> {
    const { expiresAtMs, fence, isCache = false } = options;
    const { precision = "f32", nowMs } = this.#options;
    const value = Buffer.concat([encodeSnapshot(snapshot, { precision }), keyTag(key)]);
    // A duration: the server's clock need not be ours.
    const msToLive = expiresAtMs === undefined ? "" : Math.ceil(expiresAtMs - nowMs());
    const keys = [this.#stateKey(key), this.#claimsKey, this.#revisionsKey];
    // Caches and parts, which are never replaced, have no older versions to be told from.
    const revision = isCache || snapshot.isPart ? "" : String(snapshot.revision ?? 0);
    const isPut = await this.#ask((redis) =>
      redis.eval(PUT, 3, ...keys, value, String(msToLive), String(fence ?? ""), fieldOf(key), revision),
    );
    if (isPut === 0) throw staleFence(key);
    if (isPut !== 1) throw this.#unexpected("EVAL", isPut);
  }

  async delete(key: string): Promise<boolean> {
    const existed = await this.#ask((redis) =>
      redis.eval(
        DELETE,
        2,
        this.#stateKey(key),
        this.#revisionsKey,
        DELETED,
        String(REMEMBER_DELETION_MS),
        fieldOf(key),
      ),
    );
    if (existed !== 0 && existed !== 1) throw this.#unexpected("EVAL", existed);
    return existed === 1;
  }

  /** Goes over all keys of the server, in steps that do not hold it up. */
  async *list(prefix: string): AsyncIterable<ListedSnapshot> {
    const pattern = `${escapeGlob(this.#statePrefix + prefix)}*`;
    const seen = new Set<string>();
    let cursor = "0";
    do {
      const reply: unknown = await this.#ask((redis) => redis.scan(cursor, "MATCH", pattern, "COUNT", SCAN_COUNT));
      if (!isScanReply(reply)) throw this.#unexpected("SCAN", reply);
      const [next, found] = reply;
      // The server may name a key twice.
      const fresh = found.filter((name) => !seen.has(name));
      for (const name of fresh) seen.add(name);
      yield* await this.#measure(fresh);
      cursor = next;
    } while (cursor !== "0");
  }

  stats(): StoreStats {
    return { numSnapshots: 0, bytes: 0, maxBytes: 0, numEvicted: 0 };
  }

  async claim(key: string, { ttlMs }: { readonly ttlMs: number }): Promise<Claim | undefined> {
    const field = fieldOf(key);
    const reply = await this.#ask((redis) => redis.eval(CLAIM, 1, this.#claimsKey, field, String(ttlMs)));
    if (reply === null) return undefined;
    if (typeof reply !== "string" || !Number.isSafeInteger(Number(reply))) throw this.#unexpected("EVAL", reply);
    const fence = reply;
    const renew = (ms: number) => this.#ask((redis) => redis.eval(RENEW, 1, this.#claimsKey, field, String(ms), fence));
    let isReleased = false;
    return {
      fence: Number(fence),
      renew: async () => !isReleased && (await renew(ttlMs)) === 1,
      release: async () => {
        if (isReleased) return;
        isReleased = true;
        // If the server cannot be reached the claim lapses by itself.
        await renew(0).catch(() => undefined);
      },
    };
  }

  /** Sweeps once an hour, in the background. A failure is left for the next time. */
  sweep(): void {
    if (this.#sweeper.isDue()) void this.sweepNow().catch(() => undefined);
  }

  /** @throws `store_unavailable` */
  sweepNow(): Promise<void> {
    return this.#sweeper.sweep();
  }

  async close(): Promise<void> {
    this.#connection.close();
  }

  /** Does nothing if INFO is not permitted. */
  async #warnOfEviction(): Promise<void> {
    const info: unknown = await this.#ask((redis) => redis.info("memory")).catch(() => undefined);
    if (typeof info !== "string" || !/^maxmemory:[1-9]/m.test(info)) return;
    const [, policy] = /^maxmemory_policy:(allkeys-\S+)/m.exec(info) ?? [];
    if (policy === undefined) return;
    this.#options.onWarning?.(
      `the Valkey server's maxmemory-policy is ${policy}: it may drop sessions that nobody has deleted; requests for them fail (state_lost) where no replica has the newest copy; volatile-ttl, volatile-lru and noeviction do not`,
    );
  }

  async #measure(names: readonly string[]): Promise<ListedSnapshot[]> {
    const nowMs = this.#options.nowMs();
    const measured = await Promise.all(
      names.map(async (name) => {
        const [bytes, msToLive, first] = await this.#ask((redis) =>
          Promise.all([redis.strlen(name), redis.pttl(name), redis.getrangeBuffer(name, 0, MAX_HEADER_BYTES - 1)]),
        );
        if (typeof bytes !== "number" || typeof msToLive !== "number" || !Buffer.isBuffer(first)) {
          throw this.#unexpected("STRLEN", bytes);
        }
        const key = name.slice(this.#statePrefix.length);
        const pastBytes = (headerIn(first)?.numPastTokens ?? 0) * TOKEN_BYTES;
        return { key, bytes, pastBytes, ...(msToLive >= 0 && { expiresAtMs: nowMs + msToLive }) };
      }),
    );
    // What was deleted is as short as no snapshot is; what has expired meanwhile has no length.
    return measured.filter(({ bytes }) => bytes > DELETED.length);
  }

  #ask<T>(command: (redis: Redis) => Promise<T>): Promise<T> {
    return this.#connection.ask(command);
  }

  #unexpected(command: string, reply: unknown): DenseMambaError {
    return this.#connection.mistrust(`it answered ${command} with ${JSON.stringify(reply)?.slice(0, 50)}`);
  }

  #stateKey(key: string): string {
    return this.#statePrefix + key;
  }
}

/** A key's name among claims and revisions. */
function fieldOf(key: string): string {
  return createHash("sha256").update(key).digest("base64url").slice(0, 22);
}

/** 0 if there is none. */
function revisionIn(first: Buffer): number {
  return headerIn(first)?.revision ?? 0;
}

/** Behind each snapshot: answers are told apart by it. */
function keyTag(key: string): Buffer {
  return createHash("sha256").update(key).digest().subarray(0, KEY_TAG_BYTES);
}

function isScanReply(reply: unknown): reply is [string, string[]] {
  if (!Array.isArray(reply)) return false;
  const [cursor, names] = reply as unknown[];
  return typeof cursor === "string" && Array.isArray(names) && names.every((name) => typeof name === "string");
}

function isTombstone(bytes: Buffer): boolean {
  return bytes.toString("latin1") === DELETED;
}
