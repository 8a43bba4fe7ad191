/**
 * Snapshots on a Valkey or Redis server (6.2 or later), shared by all servers that use the same key
 * prefix. Expiry and claims go by the server's clock; its `maxmemory-policy` decides what it
 * evicts.
 *
 * Two hashes hold what must outlive snapshots that the server may evict. As the most used keys they
 * are evicted last, and they have no expiry.
 * `claims`: each key's last fence and until when it is held (`<fence>:<ms>`), for a day after that,
 * to recognise stale fences. Fences count the server's microseconds, so that they rise even if the
 * last one has been forgotten.
 * `revisions`: each key's last revision, or `x` after a deletion, with `:<ms>` if that expires.
 */
import { createHash } from "node:crypto";
import type { Redis } from "ioredis";
import type { DenseMambaError } from "../../errors.ts";
import {
  decodeSnapshot,
  encodeSnapshot,
  readHeader,
  type SnapshotHeader,
  type SnapshotModel,
  type StorePrecision,
  USUAL_HEADER_BYTES,
} from "./codec.ts";
import { referencedBytes, type Snapshot } from "./snapshot.ts";
import {
  type Claim,
  type FencedPutOptions,
  type ListedSnapshot,
  type SharedRevision,
  type SharedStore,
  type StoreStats,
  staleFence,
} from "./store.ts";
import { unexpectedReply, ValkeyConnection } from "./valkey-connection.ts";

const SWEEP_INTERVAL_MS = 3_600_000;
const DELETE_BATCH = 500;
/** How long a claim's fence is remembered after it has lapsed. */
const REMEMBER_CLAIM_MS = 86_400_000;
/** How long deletions are remembered for other servers, which may have copies. */
const REMEMBER_DELETION_MS = 7 * 86_400_000;
/** Stored in the place of a deleted snapshot. */
const TOMBSTONE = "DSMGONE1";
const KEY_TAG_BYTES = 16;
const BYTES_PER_TOKEN = 4;

const NOW_MS = `local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)`;

/** KEYS: claims. ARGV: field, ttl in ms. Returns the fence as text, or nothing. */
const CLAIM = `${NOW_MS}
local last = redis.call('HGET', KEYS[1], ARGV[1]) or '0:0'
if tonumber(string.match(last, ':(%d+)$')) > now then return false end
local fence = math.max(tonumber(string.match(last, '^%d+')) + 1, time[1] * 1000000 + time[2])
fence = string.format('%.0f', fence)
redis.call('HSET', KEYS[1], ARGV[1], fence .. ':' .. string.format('%.0f', now + ARGV[2]))
return fence`;

/** KEYS: claims. ARGV: field, ttl in ms (0 releases), fence. Returns 0 for a stale fence. */
const RENEW = `${NOW_MS}
local last = redis.call('HGET', KEYS[1], ARGV[1])
if not last or string.match(last, '^%d+') ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3] .. ':' .. string.format('%.0f', now + ARGV[2]))
return 1`;

/**
 * KEYS: snapshot, claims, revisions. ARGV: snapshot, ms to live or '', fence or '', field of both,
 * revision or '' for none to remember. Returns 0 if the fence is not the last one, or a later
 * revision is known.
 */
const PUT = `${NOW_MS}
if ARGV[3] ~= '' then
  local claim = redis.call('HGET', KEYS[2], ARGV[4])
  if not claim or string.match(claim, '^%d+') ~= ARGV[3] then return 0 end
  local known = redis.call('HGET', KEYS[3], ARGV[4])
  local last = known and tonumber(string.match(known, '^%d+'))
  if last and ARGV[5] ~= '' and last > tonumber(ARGV[5]) then return 0 end
end
local record = ARGV[5]
if ARGV[2] == '' then redis.call('SET', KEYS[1], ARGV[1])
elseif tonumber(ARGV[2]) <= 0 then redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  record = record .. ':' .. string.format('%.0f', now + ARGV[2])
end
if ARGV[5] ~= '' then redis.call('HSET', KEYS[3], ARGV[4], record) end
return 1`;

/**
 * KEYS: snapshot, revisions. ARGV: tombstone, its ms to live, field. Returns 1 if there was a
 * snapshot. Deletes first: a script that has freed memory may write on a server that has none left.
 */
const DELETE = `${NOW_MS}
local first = redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1)
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('HSET', KEYS[2], ARGV[3], 'x:' .. string.format('%.0f', now + ARGV[2]))
return (first == '' or first == ARGV[1]) and 0 or 1`;

/** KEYS: snapshot, revisions. ARGV: bytes to read, field. Returns those bytes, the record or ''. */
const READ_REVISION = `${NOW_MS}
local record = redis.call('HGET', KEYS[2], ARGV[2]) or ''
local until_ms = tonumber(string.match(record, ':(%d+)$'))
if until_ms and until_ms <= now then record = '' end
return {redis.call('GETRANGE', KEYS[1], 0, ARGV[1] - 1), record}`;

/** KEYS: either hash. ARGV: fields and records in turn. Deletes each that has not changed. */
const DELETE_RECORDS = `for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then redis.call('HDEL', KEYS[1], ARGV[i]) end
end
return 1`;

export interface ValkeyStoreOptions {
  /** `redis://` or `valkey://`, with a second s for TLS: `[user:password@]host[:port][/db]`. */
  readonly url: string;
  /** Of all keys on the server. Servers with different prefixes share nothing. */
  readonly keyPrefix: string;
  readonly model: SnapshotModel;
  /** Default f32. */
  readonly precision?: StorePrecision;
  readonly nowMs: () => number;
  /** For each command. */
  readonly timeoutMs: number;
  /** Called if the server is configured so that it may lose states. */
  readonly onWarning?: (message: string) => void;
}

export class ValkeyStore implements SharedStore {
  readonly #options: ValkeyStoreOptions;
  readonly #connection: ValkeyConnection;
  readonly #statePrefix: string;
  readonly #claimsKey: string;
  readonly #revisionsKey: string;
  #lastSweepMs: number;
  #isSweeping = false;
  /** Segments that nothing referred to at the last sweep. */
  #unreferenced: ReadonlySet<string> = new Set();

  private constructor(options: ValkeyStoreOptions) {
    const { url, keyPrefix, nowMs, timeoutMs } = options;
    this.#options = options;
    this.#connection = new ValkeyConnection({ url, timeoutMs });
    this.#statePrefix = `${keyPrefix}state:`;
    this.#claimsKey = `${keyPrefix}claims`;
    this.#revisionsKey = `${keyPrefix}revisions`;
    this.#lastSweepMs = nowMs();
  }

  /**
   * Returns once connected, or when that has failed or timed out: the server may return.
   * @throws `invalid_config` for a malformed URL
   */
  static async open(options: ValkeyStoreOptions): Promise<ValkeyStore> {
    const store = new ValkeyStore(options);
    await store.#connection.waitForConnection();
    await store.#warnOfEviction();
    return store;
  }

  async get(key: string): Promise<Snapshot | undefined> {
    const value: unknown = await this.#run((redis) => redis.getBuffer(this.#stateKey(key)));
    if (value === null) return undefined;
    if (!Buffer.isBuffer(value)) throw this.#unexpected("GET", value);
    if (isTombstone(value)) return undefined;
    const end = Math.max(0, value.length - KEY_TAG_BYTES);
    // Another key's snapshot would be intact, and another user's.
    if (!value.subarray(end).equals(keyTag(key))) {
      throw this.#connection.distrust(`it answered with something other than what was stored under ${key}`);
    }
    return decodeSnapshot(value.subarray(0, end), this.#options.model);
  }

  async has(key: string): Promise<boolean> {
    const found = await this.revisionOf(key);
    return typeof found === "object" && found.exists;
  }

  async revisionOf(key: string): Promise<SharedRevision> {
    const keys = [this.#stateKey(key), this.#revisionsKey];
    const reply: unknown = await this.#run((redis) =>
      redis.callBuffer("EVAL", READ_REVISION, keys.length, ...keys, USUAL_HEADER_BYTES, fieldOf(key)),
    );
    const [first, record] = Array.isArray(reply) ? (reply as unknown[]) : [];
    if (!Buffer.isBuffer(first) || !Buffer.isBuffer(record) || first.length > USUAL_HEADER_BYTES) {
      throw this.#unexpected("EVAL", reply);
    }
    if (isTombstone(first)) return "deleted";
    if (first.length > 0) return { revision: headerIn(first)?.revision ?? 0, exists: true };
    const [, known] = /^(x|\d+)(?::|$)/.exec(record.toString("latin1")) ?? [];
    if (known === undefined) return "unknown";
    return known === "x" ? "deleted" : { revision: Number(known), exists: false };
  }

  async put(key: string, snapshot: Snapshot, options: FencedPutOptions = {}): Promise<void> {
    const { expiresAtMs, fence, isCache = false } = options;
    const { precision = "f32", nowMs } = this.#options;
    const value = Buffer.concat([encodeSnapshot(snapshot, { precision }), keyTag(key)]);
    // A duration: the server's clock may differ from ours.
    const msToLive = expiresAtMs === undefined ? "" : Math.ceil(expiresAtMs - nowMs());
    // Caches and segments, which are never replaced, have no older versions.
    const revision = isCache || snapshot.isSegment ? "" : String(snapshot.revision ?? 0);
    const keys = [this.#stateKey(key), this.#claimsKey, this.#revisionsKey];
    const args = [value, String(msToLive), String(fence ?? ""), fieldOf(key), revision];
    const isPut = await this.#run((redis) => redis.eval(PUT, keys.length, ...keys, ...args));
    if (isPut === 0) throw staleFence(key);
    if (isPut !== 1) throw this.#unexpected("EVAL", isPut);
  }

  async delete(key: string): Promise<boolean> {
    const keys = [this.#stateKey(key), this.#revisionsKey];
    const args = [TOMBSTONE, String(REMEMBER_DELETION_MS), fieldOf(key)];
    const existed = await this.#run((redis) => redis.eval(DELETE, keys.length, ...keys, ...args));
    if (existed !== 0 && existed !== 1) throw this.#unexpected("EVAL", existed);
    return existed === 1;
  }

  async *list(prefix: string): AsyncIterable<ListedSnapshot> {
    const seen = new Set<string>();
    for await (const names of this.#connection.scan(this.#statePrefix + prefix)) {
      const fresh = names.filter((name) => !seen.has(name));
      for (const name of fresh) seen.add(name);
      const listed = await Promise.all(fresh.map((name) => this.#measure(name)));
      // Tombstones are shorter than any snapshot; what has expired meanwhile has no length.
      yield* listed.filter(({ bytes }) => bytes > TOMBSTONE.length);
    }
  }

  stats(): StoreStats {
    return { numSnapshots: 0, bytes: 0, maxBytes: 0, numEvicted: 0 };
  }

  async claim(key: string, { ttlMs }: { readonly ttlMs: number }): Promise<Claim | undefined> {
    const field = fieldOf(key);
    const fence = await this.#run((redis) => redis.eval(CLAIM, 1, this.#claimsKey, field, String(ttlMs)));
    if (fence === null) return undefined;
    if (typeof fence !== "string" || !Number.isSafeInteger(Number(fence))) throw this.#unexpected("EVAL", fence);
    const renew = (ms: number) => this.#run((redis) => redis.eval(RENEW, 1, this.#claimsKey, field, String(ms), fence));
    let isReleased = false;
    return {
      fence: Number(fence),
      renew: async () => !isReleased && (await renew(ttlMs)) === 1,
      release: async () => {
        if (isReleased) return;
        isReleased = true;
        // If the server cannot be reached, the claim lapses by itself.
        await renew(0).catch(() => undefined);
      },
    };
  }

  /** Once an hour, in the background. A failure is left for the next time. */
  sweep(): void {
    const isDue = Math.abs(this.#options.nowMs() - this.#lastSweepMs) >= SWEEP_INTERVAL_MS;
    if (isDue && !this.#isSweeping) void this.sweepNow().catch(() => undefined);
  }

  /**
   * Removes what the server cannot expire by itself: segments without references, and ended
   * records.
   * @throws `store_unavailable`
   */
  async sweepNow(): Promise<void> {
    this.#lastSweepMs = this.#options.nowMs();
    this.#isSweeping = true;
    try {
      await this.#deleteSegments();
      await this.#deleteRecords(this.#revisionsKey, 0);
      await this.#deleteRecords(this.#claimsKey, REMEMBER_CLAIM_MS);
    } finally {
      this.#isSweeping = false;
    }
  }

  async close(): Promise<void> {
    this.#connection.close();
  }

  /** Does nothing if INFO is not permitted. */
  async #warnOfEviction(): Promise<void> {
    const info: unknown = await this.#run((redis) => redis.info("memory")).catch(() => undefined);
    if (typeof info !== "string" || !/^maxmemory:[1-9]/m.test(info)) return;
    const [, policy] = /^maxmemory_policy:(allkeys-\S+)/m.exec(info) ?? [];
    if (policy === undefined) return;
    this.#options.onWarning?.(
      `the Valkey server's maxmemory-policy is ${policy}: it may drop sessions that nobody has deleted; requests for them fail (state_lost) where no replica has the newest copy; volatile-ttl, volatile-lru and noeviction do not`,
    );
  }

  /** Those that nothing refers to now, nor did an hour ago: a request may have been about to. */
  async #deleteSegments(): Promise<void> {
    const historyOf = new Map<string, string | undefined>();
    const referenced = new Set<string>();
    for await (const names of this.#connection.scan(this.#statePrefix)) {
      const headers = await Promise.all(names.map((name) => this.#header(name)));
      for (const [i, header] of headers.entries()) {
        if (header === undefined) continue;
        const { isSegment, references } = header;
        if (isSegment) historyOf.set(names[i]!.slice(this.#statePrefix.length), references[0]);
        else for (const key of references) referenced.add(key);
      }
    }
    // NOTE: the set grows while it is iterated, so that indirect references are followed.
    for (const key of referenced) {
      const previous = historyOf.get(key);
      if (previous !== undefined) referenced.add(previous);
    }
    const unreferenced = [...historyOf.keys()].filter((key) => !referenced.has(key));
    const outdated = unreferenced.filter((key) => this.#unreferenced.has(key));
    this.#unreferenced = new Set(unreferenced);
    for (let first = 0; first < outdated.length; first += DELETE_BATCH) {
      const names = outdated.slice(first, first + DELETE_BATCH).map((key) => this.#stateKey(key));
      await this.#run((redis) => redis.unlink(...names));
    }
  }

  /** Records of a hash that ended more than `graceMs` ago. */
  async #deleteRecords(hash: string, graceMs: number): Promise<void> {
    const time: unknown = await this.#run((redis) => redis.time());
    if (!Array.isArray(time)) throw this.#unexpected("TIME", time);
    const nowMs = Number(time[0]) * 1000;
    for await (const pairs of this.#connection.scanHash(hash)) {
      const ended = pairs.flatMap((record, i) => {
        const [, untilMs] = i % 2 === 1 ? (/:(\d+)$/.exec(record) ?? []) : [];
        return untilMs !== undefined && Number(untilMs) + graceMs < nowMs ? [pairs[i - 1]!, record] : [];
      });
      if (ended.length > 0) await this.#run((redis) => redis.eval(DELETE_RECORDS, 1, hash, ...ended));
    }
  }

  async #measure(name: string): Promise<ListedSnapshot> {
    const nowMs = this.#options.nowMs();
    const [[bytes, msToLive], header] = await Promise.all([
      this.#run((redis) => Promise.all([redis.strlen(name), redis.pttl(name)])),
      this.#header(name),
    ]);
    if (typeof bytes !== "number" || typeof msToLive !== "number") {
      throw this.#unexpected("STRLEN", bytes);
    }
    const key = name.slice(this.#statePrefix.length);
    const referenced = header === undefined ? 0 : referencedBytes(header, BYTES_PER_TOKEN);
    return { key, bytes, referencedBytes: referenced, ...(msToLive >= 0 && { expiresAtMs: nowMs + msToLive }) };
  }

  async #header(name: string): Promise<SnapshotHeader | undefined> {
    const read = (numBytes: number) => this.#run((redis) => redis.getrangeBuffer(name, 0, numBytes - 1));
    const header = headerIn(await read(USUAL_HEADER_BYTES));
    if (header === undefined || header.headerBytes <= USUAL_HEADER_BYTES) return header;
    return headerIn(await read(header.headerBytes));
  }

  #run<T>(command: (redis: Redis) => Promise<T>): Promise<T> {
    return this.#connection.run(command);
  }

  #unexpected(command: string, reply: unknown): DenseMambaError {
    return this.#connection.distrust(unexpectedReply(command, reply));
  }

  #stateKey(key: string): string {
    return this.#statePrefix + key;
  }
}

/** A key's field in the hashes of claims and revisions. */
function fieldOf(key: string): string {
  return createHash("sha256").update(key).digest("base64url").slice(0, 22);
}

/** Appended to each snapshot, to recognise another key's. */
function keyTag(key: string): Buffer {
  return createHash("sha256").update(key).digest().subarray(0, KEY_TAG_BYTES);
}

/** @returns undefined if it is not the beginning of a snapshot of this format version */
function headerIn(first: unknown): SnapshotHeader | undefined {
  try {
    return Buffer.isBuffer(first) ? readHeader(first) : undefined;
  } catch {
    return undefined;
  }
}

function isTombstone(bytes: Buffer): boolean {
  return bytes.toString("latin1") === TOMBSTONE;
}
