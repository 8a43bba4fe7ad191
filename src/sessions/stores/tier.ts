/**
 * One store of a `TieredStore`, which may break and come back. While it cannot be read, or cannot be written (a full disk
 * can still be read), it is not asked but for a try now and then. What could not be written meanwhile is remembered:
 * what the tier says of it is old.
 */
import { DenseMambaError } from "../../errors.ts";
import type { StateStore, StoreStats } from "./store.ts";

const FIRST_RETRY_MS = 1000;
const MAX_RETRY_MS = 30_000;
const MAX_BEHIND = 100_000;

export type TierName = "memory" | "disk" | "shared";
type Way = "read" | "write";

export interface TierStats extends StoreStats {
  readonly name: TierName;
  /** Whether it can be both read and written, as far as is known. */
  readonly isAvailable: boolean;
  /** Questions that it failed to answer. Those that it was spared do not count. */
  readonly numFailures: number;
}

export interface TierEvent {
  readonly name: TierName;
  readonly way: Way;
  readonly isAvailable: boolean;
  /** For a log. */
  readonly message: string;
}

/** For log and metrics. */
export interface StoreObserver {
  /** A tier has broken, or works again: once each. */
  onTier(event: TierEvent): void;
  /** A snapshot was damaged, and has been removed. */
  onDamage(message: string): void;
  /** A store is set up so that it may lose states. */
  onWarning?(message: string): void;
}

export interface TierOptions<Store extends StateStore> {
  readonly name: TierName;
  readonly store: Store;
  readonly nowMs: () => number;
  /** Between two tries while it is broken, which lie further and further apart. Default: 30 seconds. */
  readonly maxRetryMs?: number;
  readonly onChange: (event: TierEvent) => void;
}

interface Circuit {
  /** Undefined while it works. */
  failure: DenseMambaError | undefined;
  retryAtMs: number;
  retryDelayMs: number;
}

export class Tier<Store extends StateStore = StateStore> {
  readonly name: TierName;
  readonly store: Store;
  readonly #nowMs: () => number;
  readonly #maxRetryMs: number;
  readonly #onChange: (event: TierEvent) => void;
  readonly #circuits: Readonly<Record<Way, Circuit>> = { read: closed(), write: closed() };
  readonly #behind = new Set<string>();
  #numFailures = 0;

  constructor({ name, store, nowMs, maxRetryMs = MAX_RETRY_MS, onChange }: TierOptions<Store>) {
    this.name = name;
    this.#maxRetryMs = maxRetryMs;
    this.store = store;
    this.#nowMs = nowMs;
    this.#onChange = onChange;
  }

  /** Keys whose last put or deletion did not reach it: what it holds of them does not count. */
  get behind(): ReadonlySet<string> {
    return this.#behind;
  }

  setBehind(key: string, isBehind: boolean): void {
    this.#behind.delete(key);
    if (isBehind) this.#behind.add(key);
    for (const oldest of this.#behind) {
      if (this.#behind.size <= MAX_BEHIND) return;
      this.#behind.delete(oldest);
    }
  }

  stats(): TierStats {
    const { read, write } = this.#circuits;
    const isAvailable = read.failure === undefined && write.failure === undefined;
    return { ...this.store.stats(), name: this.name, isAvailable, numFailures: this.#numFailures };
  }

  /** @throws `store_unavailable`, at once if the tier is known to be broken; whatever else the store throws */
  async ask<T>(way: Way, question: (store: Store) => Promise<T>): Promise<T> {
    const circuit = this.#circuits[way];
    this.#throwIfBroken(circuit);
    // This question is a try; no others are asked until its outcome is known.
    if (circuit.failure !== undefined) circuit.retryAtMs = this.#nowMs() + circuit.retryDelayMs;
    try {
      const answer = await question(this.store);
      this.#works(way, circuit);
      return answer;
    } catch (error) {
      if (isUnavailable(error)) this.#fails(way, circuit, error);
      else this.#works(way, circuit);
      throw error;
    }
  }

  /**
   * Asks whether or not it can be written: what is full can be deleted from. There may be room afterwards.
   * @throws `store_unavailable`; whatever else the store throws
   */
  async askToDelete(key: string): Promise<boolean> {
    const { read, write } = this.#circuits;
    this.#throwIfBroken(read);
    try {
      const existed = await this.store.delete(key);
      write.retryAtMs = this.#nowMs();
      return existed;
    } catch (error) {
      if (isUnavailable(error)) this.#fails("write", write, error);
      throw error;
    }
  }

  #throwIfBroken({ failure, retryAtMs }: Circuit): void {
    const waitMs = retryAtMs - this.#nowMs();
    // A longer wait than the longest means that the clock was set back.
    if (failure !== undefined && waitMs > 0 && waitMs <= this.#maxRetryMs) throw failure;
  }

  #works(way: Way, circuit: Circuit): void {
    if (circuit.failure === undefined) return;
    Object.assign(circuit, closed());
    const message = `the ${this.name} tier of kept states can be ${PARTICIPLE[way]} again`;
    this.#onChange({ name: this.name, way, isAvailable: true, message });
  }

  #fails(way: Way, circuit: Circuit, error: DenseMambaError): void {
    this.#numFailures++;
    const wasKnown = circuit.failure !== undefined;
    circuit.failure = error;
    circuit.retryDelayMs = wasKnown ? Math.min(circuit.retryDelayMs * 2, this.#maxRetryMs) : FIRST_RETRY_MS;
    circuit.retryAtMs = this.#nowMs() + circuit.retryDelayMs;
    if (wasKnown) return;
    const message = `the ${this.name} tier of kept states cannot be ${PARTICIPLE[way]}; going on without: ${error.message}`;
    this.#onChange({ name: this.name, way, isAvailable: false, message });
  }
}

const PARTICIPLE: Readonly<Record<Way, string>> = { read: "read", write: "written" };

function closed(): Circuit {
  return { failure: undefined, retryAtMs: 0, retryDelayMs: FIRST_RETRY_MS };
}

export function isUnavailable(error: unknown): error is DenseMambaError {
  return error instanceof DenseMambaError && error.code === "store_unavailable";
}
