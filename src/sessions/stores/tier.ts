/**
 * One store of a `TieredStore`, with a circuit breaker each for reading and writing (a full disk
 * can still be read): while it is broken it is only tried now and then. Remembers which keys it
 * could not write: what it holds under those is outdated.
 */
import { DenseMambaError } from "../../errors.ts";
import type { SnapshotStore, StoreStats } from "./store.ts";

const FIRST_RETRY_MS = 1000;
const MAX_RETRY_MS = 30_000;
const MAX_OUTDATED = 100_000;

export type TierName = "memory" | "disk" | "shared";
type Way = "read" | "write";

export interface TierStats extends StoreStats {
  readonly name: TierName;
  /** Whether it can be both read and written, as far as is known. */
  readonly isAvailable: boolean;
  /** Operations that failed. Those that were skipped while it was broken do not count. */
  readonly numFailures: number;
}

export interface TierEvent {
  readonly name: TierName;
  readonly way: Way;
  readonly isAvailable: boolean;
  /** For a log. */
  readonly message: string;
}

/** For logs and metrics. */
export interface StoreObserver {
  /** A tier has broken, or works again: once each. */
  onTier(event: TierEvent): void;
  /** A snapshot was damaged and has been removed. */
  onDamage(message: string): void;
  /** A store is configured so that it may lose states. */
  onWarning?(message: string): void;
}

export interface TierOptions<Store extends SnapshotStore> {
  readonly name: TierName;
  readonly store: Store;
  readonly nowMs: () => number;
  /** Between two tries while it is broken; the interval doubles up to this. Default: 30 seconds. */
  readonly maxRetryMs?: number;
  readonly onChange: (event: TierEvent) => void;
}

interface Circuit {
  /** Undefined while it works. */
  failure: DenseMambaError | undefined;
  retryAtMs: number;
  retryDelayMs: number;
}

export class Tier<Store extends SnapshotStore = SnapshotStore> {
  readonly name: TierName;
  readonly store: Store;
  readonly #nowMs: () => number;
  readonly #maxRetryMs: number;
  readonly #onChange: (event: TierEvent) => void;
  readonly #circuits: Readonly<Record<Way, Circuit>> = { read: closedCircuit(), write: closedCircuit() };
  readonly #outdated = new Set<string>();
  #numFailures = 0;

  constructor({ name, store, nowMs, maxRetryMs = MAX_RETRY_MS, onChange }: TierOptions<Store>) {
    this.name = name;
    this.store = store;
    this.#nowMs = nowMs;
    this.#maxRetryMs = maxRetryMs;
    this.#onChange = onChange;
  }

  /** Keys whose last put or deletion did not reach it: what it holds of them must not be used. */
  get outdated(): ReadonlySet<string> {
    return this.#outdated;
  }

  setOutdated(key: string, isOutdated: boolean): void {
    this.#outdated.delete(key);
    if (isOutdated) this.#outdated.add(key);
    for (const oldest of this.#outdated) {
      if (this.#outdated.size <= MAX_OUTDATED) return;
      this.#outdated.delete(oldest);
    }
  }

  stats(): TierStats {
    const { read, write } = this.#circuits;
    const isAvailable = read.failure === undefined && write.failure === undefined;
    return { ...this.store.stats(), name: this.name, isAvailable, numFailures: this.#numFailures };
  }

  /** @throws `store_unavailable`, at once if the tier is broken; whatever else `act` throws */
  async run<T>(way: Way, act: (store: Store) => Promise<T>): Promise<T> {
    const circuit = this.#circuits[way];
    this.#throwIfBroken(circuit);
    // One try at a time: others wait until its outcome is known.
    if (circuit.failure !== undefined) circuit.retryAtMs = this.#nowMs() + circuit.retryDelayMs;
    try {
      const result = await act(this.store);
      this.#recordSuccess(way, circuit);
      return result;
    } catch (error) {
      if (isUnavailable(error)) this.#recordFailure(way, circuit, error);
      else this.#recordSuccess(way, circuit);
      throw error;
    }
  }

  /** Tried even while writing is broken: deleting from a full disk works, and makes room. */
  async delete(key: string): Promise<boolean> {
    const { read, write } = this.#circuits;
    this.#throwIfBroken(read);
    try {
      const existed = await this.store.delete(key);
      write.retryAtMs = this.#nowMs();
      return existed;
    } catch (error) {
      if (isUnavailable(error)) this.#recordFailure("write", write, error);
      throw error;
    }
  }

  #throwIfBroken({ failure, retryAtMs }: Circuit): void {
    const waitMs = retryAtMs - this.#nowMs();
    // A longer wait than the longest means that the clock was set back.
    if (failure !== undefined && waitMs > 0 && waitMs <= this.#maxRetryMs) throw failure;
  }

  #recordSuccess(way: Way, circuit: Circuit): void {
    if (circuit.failure === undefined) return;
    Object.assign(circuit, closedCircuit());
    const message = `the ${this.name} tier of stored states can be ${PARTICIPLE[way]} again`;
    this.#onChange({ name: this.name, way, isAvailable: true, message });
  }

  #recordFailure(way: Way, circuit: Circuit, error: DenseMambaError): void {
    this.#numFailures++;
    const wasBroken = circuit.failure !== undefined;
    circuit.failure = error;
    circuit.retryDelayMs = wasBroken ? Math.min(circuit.retryDelayMs * 2, this.#maxRetryMs) : FIRST_RETRY_MS;
    circuit.retryAtMs = this.#nowMs() + circuit.retryDelayMs;
    if (wasBroken) return;
    const what = `the ${this.name} tier of stored states cannot be ${PARTICIPLE[way]}`;
    this.#onChange({
      name: this.name,
      way,
      isAvailable: false,
      message: `${what}; continuing without it: ${error.message}`,
    });
  }
}

const PARTICIPLE: Readonly<Record<Way, string>> = { read: "read", write: "written" };

function closedCircuit(): Circuit {
  return { failure: undefined, retryAtMs: 0, retryDelayMs: FIRST_RETRY_MS };
}

export function isUnavailable(error: unknown): error is DenseMambaError {
  return error instanceof DenseMambaError && error.code === "store_unavailable";
}

/** What could be found, and the failure that may have hidden more. */
export interface Found<T> {
  readonly value: T | undefined;
  readonly failure: DenseMambaError | undefined;
}

/** A failure as a value. @throws what is not a `DenseMambaError`: a bug of ours */
export async function foundOf<T>(work: Promise<T>): Promise<Found<T>> {
  try {
    return { value: await work, failure: undefined };
  } catch (error) {
    if (error instanceof DenseMambaError) return { value: undefined, failure: error };
    throw error;
  }
}
