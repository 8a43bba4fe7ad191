/** The entry of this folder for those who put a server together: as many tiers as are asked for, as one store. */
import type { SnapshotModel, StatePrecision } from "./codec.ts";
import { DiskStore } from "./disk-store.ts";
import type { OwnerOf } from "./lru-index.ts";
import { MemoryStore } from "./memory-store.ts";
import type { StoreObserver } from "./tier.ts";
import { TieredStore } from "./tiered-store.ts";
import type { ValkeyStore } from "./valkey-store.ts";

export interface OpenStoreOptions {
  readonly memoryBytes: number;
  /** A folder of this server's own. */
  readonly disk?: { readonly dir: string; readonly maxBytes: number };
  /** The same URL and prefix of keys on all replicas. */
  readonly valkey?: { readonly url: string; readonly keyPrefix: string; readonly timeoutMs?: number };
  readonly model: SnapshotModel;
  /** What states are stored in on disk and server. Default f32: f16 is not exact. Nothing for a model whose own state is f16. */
  readonly precision?: StatePrecision;
  readonly nowMs: () => number;
  /** Whose a key is: in memory and on the disk whoever holds the most gives way first. Default: all belongs to one. */
  readonly ownerOf?: OwnerOf;
  readonly observer: StoreObserver;
}

/**
 * A Valkey server that cannot be reached is waited for a moment, and used when it comes.
 * @throws `invalid_config` if another server uses the folder, or the URL is none; `store_unavailable` if the folder
 * cannot be used
 */
export async function openStore(options: OpenStoreOptions): Promise<TieredStore> {
  const { memoryBytes, model, nowMs, ownerOf, observer } = options;
  const precision = model.isHalf ? undefined : options.precision;
  const common = { model, nowMs, ...(precision && { precision }) };
  const onDamage = (message: string) => observer.onDamage(message);
  const disk = options.disk && (await DiskStore.open({ ...common, ...options.disk, ownerOf, onDamage }));
  try {
    const onWarning = (message: string) => observer.onWarning?.(message);
    const shared = options.valkey && (await openValkey({ ...common, ...options.valkey, onWarning }));
    const memory = new MemoryStore({ maxBytes: memoryBytes, nowMs, ownerOf });
    return new TieredStore({ memory, ...(disk && { disk }), ...(shared && { shared }), nowMs, observer });
  } catch (error) {
    await disk?.close();
    throw error;
  }
}

/** Its client is loaded by those who want it: it takes a tenth of the time that a server takes to start. */
async function openValkey(options: Parameters<typeof ValkeyStore.open>[0]): Promise<ValkeyStore> {
  const valkey = await import("./valkey-store.ts");
  return valkey.ValkeyStore.open(options);
}
