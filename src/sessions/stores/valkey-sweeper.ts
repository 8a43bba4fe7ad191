/**
 * Removes what a Valkey server cannot expire by itself: segments that nothing refers to any more, and ended
 * records of claims and revisions. Each replica sweeps once an hour.
 */
import { MAX_HEADER_BYTES, readHeader, type SnapshotHeader } from "./codec.ts";
import { unexpectedReply, type ValkeyConnection } from "./valkey-connection.ts";

const INTERVAL_MS = 3_600_000;
const BATCH = 500;
/** How long a claim's fence is remembered after it has lapsed. */
const REMEMBER_CLAIM_MS = 86_400_000;

/** KEYS: a hash. ARGV: fields and records in turn. Deletes each that has not changed. */
const DELETE_RECORDS = `for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then redis.call('HDEL', KEYS[1], ARGV[i]) end
end
return 1`;

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
  /** Segments that nothing referred to at the last sweep: a request may have been about to. */
  #unreferenced: ReadonlySet<string> = new Set();

  constructor(options: ValkeySweeperOptions) {
    this.#options = options;
    this.#lastAtMs = options.nowMs();
  }

  isDue(): boolean {
    return !this.#isSweeping && Math.abs(this.#options.nowMs() - this.#lastAtMs) >= INTERVAL_MS;
  }

  /** @throws `store_unavailable` */
  async sweep(): Promise<void> {
    const { claimsKey, revisionsKey, nowMs } = this.#options;
    this.#lastAtMs = nowMs();
    this.#isSweeping = true;
    try {
      await this.#deleteSegments();
      await this.#deleteRecords(revisionsKey, 0);
      await this.#deleteRecords(claimsKey, REMEMBER_CLAIM_MS);
    } finally {
      this.#isSweeping = false;
    }
  }

  /** Those that nothing refers to now, nor did an hour ago. */
  async #deleteSegments(): Promise<void> {
    const { connection, statePrefix } = this.#options;
    const historyOf = new Map<string, string | undefined>();
    const referenced = new Set<string>();
    for await (const names of connection.scan(statePrefix)) {
      const headers = await Promise.all(names.map((name) => fetchHeader(connection, name)));
      for (const [i, header] of headers.entries()) {
        if (header === undefined) continue;
        if (header.isSegment) historyOf.set(names[i]!.slice(statePrefix.length), header.historyKey);
        else if (header.historyKey !== undefined) referenced.add(header.historyKey);
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
    for (let first = 0; first < outdated.length; first += BATCH) {
      const names = outdated.slice(first, first + BATCH).map((key) => statePrefix + key);
      await connection.run((redis) => redis.unlink(...names));
    }
  }

  /** Those of a hash that ended more than `graceMs` ago. */
  async #deleteRecords(key: string, graceMs: number): Promise<void> {
    const { connection } = this.#options;
    const time: unknown = await connection.run((redis) => redis.time());
    if (!Array.isArray(time)) throw connection.distrust(unexpectedReply("TIME", time));
    const nowMs = Number(time[0]) * 1000;
    for await (const pairs of connection.scanHash(key)) {
      const ended = pairs.flatMap((record, i) => {
        const [, untilMs] = i % 2 === 1 ? (/:(\d+)$/.exec(record) ?? []) : [];
        return untilMs !== undefined && Number(untilMs) + graceMs < nowMs ? [pairs[i - 1]!, record] : [];
      });
      if (ended.length > 0) await connection.run((redis) => redis.eval(DELETE_RECORDS, 1, key, ...ended));
    }
  }
}

async function fetchHeader(connection: ValkeyConnection, name: string): Promise<SnapshotHeader | undefined> {
  const first: unknown = await connection.run((redis) => redis.getrangeBuffer(name, 0, MAX_HEADER_BYTES - 1));
  return Buffer.isBuffer(first) ? headerIn(first) : undefined;
}

/** @returns undefined if it is not the beginning of a snapshot of this format version */
export function headerIn(first: Buffer): SnapshotHeader | undefined {
  try {
    return readHeader(first);
  } catch {
    return undefined;
  }
}
