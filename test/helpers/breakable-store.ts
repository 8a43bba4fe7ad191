/**
 * A store in memory that breaks when it is told to, and can stand for a server that several share.
 */
import { DenseMambaError } from "../../src/errors.ts";
import { MemoryStore } from "../../src/sessions/stores/memory-store.ts";
import type { Snapshot } from "../../src/sessions/stores/snapshot.ts";
import type {
  Claim,
  ListedSnapshot,
  PutOptions,
  SharedRevision,
  SharedStore,
} from "../../src/sessions/stores/store.ts";

export class BreakableStore implements SharedStore {
  /** What fails with `store_unavailable`. */
  broken: "nothing" | "everything" | "writing" | "putting" = "nothing";
  /** Before each answer. */
  delay: () => Promise<unknown> = async () => undefined;
  numAsked = 0;
  /** Of one snapshot's text. */
  maxBytes = Number.POSITIVE_INFINITY;
  readonly #inner: MemoryStore;
  /** The last revision of each key, as a Valkey server remembers it. */
  readonly #records = new Map<string, number | "deleted">();

  constructor({ nowMs }: { nowMs: () => number }) {
    this.#inner = new MemoryStore({ maxBytes: 1e8, nowMs });
  }

  async get(key: string): Promise<Snapshot | undefined> {
    await this.#ask("reading");
    return this.#inner.get(key);
  }

  async has(key: string): Promise<boolean> {
    await this.#ask("reading");
    return this.#inner.has(key);
  }

  async revisionOf(key: string): Promise<SharedRevision> {
    await this.#ask("reading");
    const snapshot = await this.#inner.get(key);
    if (snapshot !== undefined) return { revision: snapshot.revision ?? 0, exists: true };
    const record = this.#records.get(key) ?? "unknown";
    return typeof record === "number" ? { revision: record, exists: false } : record;
  }

  async put(key: string, snapshot: Snapshot, options?: PutOptions): Promise<void> {
    await this.#ask("writing", "putting");
    if (JSON.stringify(snapshot.conversation).length > this.maxBytes) {
      throw new DenseMambaError("invalid_value", "too large for the test");
    }
    await this.#inner.put(key, snapshot, options);
    if (!options?.isCache && !snapshot.isSegment) this.#records.set(key, snapshot.revision ?? 0);
  }

  async delete(key: string): Promise<boolean> {
    await this.#ask("writing");
    this.#records.set(key, "deleted");
    return this.#inner.delete(key);
  }

  async *list(prefix: string): AsyncIterable<ListedSnapshot> {
    await this.#ask("reading");
    yield* this.#inner.list(prefix);
  }

  stats() {
    return this.#inner.stats();
  }

  async claim(key: string, options: { ttlMs: number }): Promise<Claim | undefined> {
    await this.#ask("writing");
    const claim = await this.#inner.claim(key, options);
    return (
      claim && {
        ...claim,
        renew: async () => {
          await this.#ask("writing");
          return claim.renew();
        },
      }
    );
  }

  /** As a server with little memory does. */
  evict(key: string): Promise<boolean> {
    return this.#inner.delete(key);
  }

  /** As a server does that is restarted without having written anything down. */
  async forget(): Promise<void> {
    this.#records.clear();
    for await (const { key } of this.#inner.list("")) await this.#inner.delete(key);
  }

  async close(): Promise<void> {}

  async #ask(...ways: ("reading" | "writing" | "putting")[]): Promise<void> {
    this.numAsked++;
    await this.delay();
    if (this.broken !== "everything" && !ways.some((way) => way === this.broken)) return;
    throw new DenseMambaError("store_unavailable", "broken by the test");
  }
}
