/**
 * Opens the tiers that are configured, as one store.
 */
import type { SnapshotModel, StorePrecision } from "./codec.ts";
import { DiskStore } from "./disk-store.ts";
import { MemoryStore } from "./memory-store.ts";
import type { OwnerOf } from "./snapshot-index.ts";
import type { SharedStore } from "./store.ts";
import type { StoreObserver } from "./tier.ts";
import { TieredStore } from "./tiered-store.ts";
import type { ValkeyStoreOptions } from "./valkey-store.ts";

export interface OpenStoreOptions {
  readonly memoryBytes: number;
  /** A folder for this server alone. */
  readonly disk?: { readonly dir: string; readonly maxBytes: number };
  /** The same URL and key prefix on all replicas. */
  readonly valkey?: { readonly url: string; readonly keyPrefix: string; readonly timeoutMs: number };
  readonly isSharedRequired?: boolean;
  readonly model: SnapshotModel;
  /** Of states on disk and server, unless they are f16 anyway. Default f32: f16 is not exact. */
  readonly precision?: StorePrecision;
  readonly nowMs: () => number;
  /** Of a key: the owner with the most bytes is evicted from. Default: there is one owner. */
  readonly ownerOf?: OwnerOf;
  readonly observer: StoreObserver;
}

/**
 * A Valkey server that cannot be reached is used when it can be; where it is required, `check` tells
 * whether it can.
 * @throws `store_in_use` for a folder that another server holds, `invalid_config` for a malformed
 * URL, `store_unavailable` for an unusable folder
 */
export async function openStore(options: OpenStoreOptions): Promise<TieredStore> {
  const { memoryBytes, model, nowMs, ownerOf, observer, isSharedRequired = false } = options;
  const precision = model.isHalf ? undefined : options.precision;
  const common = { model, nowMs, ...(precision && { precision }) };
  const onDamage = (message: string) => observer.onDamage(message);
  const disk = options.disk && (await DiskStore.open({ ...common, ...options.disk, ownerOf, onDamage }));
  try {
    const onWarning = (message: string) => observer.onWarning?.(message);
    const shared = options.valkey && (await openValkey({ ...common, ...options.valkey, onWarning }));
    const memory = new MemoryStore({ maxBytes: memoryBytes, nowMs, ownerOf });
    const tiers = { memory, ...(disk && { disk }), ...(shared && { shared }) };
    return new TieredStore({ ...tiers, isSharedRequired, nowMs, observer });
  } catch (error) {
    await disk?.close();
    throw error;
  }
}

/** Loaded on demand: its client takes a tenth of a server's start. */
async function openValkey(options: ValkeyStoreOptions): Promise<SharedStore> {
  const { ValkeyStore } = await import("./valkey-store.ts");
  return ValkeyStore.open(options);
}
