/**
 * The stores that the configuration asks for: one for what clients want to keep (sessions and
 * responses), one for the prefix cache, each with its own tiers. What happens to a tier goes to the
 * log and the metrics.
 */
import path from "node:path";
import type { Config } from "../config/schema.ts";
import { DenseMambaError } from "../errors.ts";
import type { Manifest } from "../model/artifact.ts";
import { hasHalfStates } from "../model/manifest.ts";
import { stateBytes } from "../model/state.ts";
import { PrefixCache, type PrefixCacheStats } from "../prefix/prefix-cache.ts";
import type { Log } from "../server/deps.ts";
import { ownerOf } from "../sessions/conversation-store.ts";
import type { RetentionPolicy } from "../sessions/conversations.ts";
import { type Repeat, repeatInBackground } from "../sessions/locks.ts";
import { type OpenStoreOptions, openStore } from "../sessions/stores/open-store.ts";
import type { StateStore } from "../sessions/stores/store.ts";
import type { StoreObserver } from "../sessions/stores/tier.ts";
import type { TieredStats, TieredStore } from "../sessions/stores/tiered-store.ts";
import type { SizedConfig } from "./machine.ts";

/** On a shared server prefixes expire, so that it can evict them before sessions. */
const SHARED_PREFIX_TTL_MS = 86_400_000;

/** Between sweeps, each of which removes some expired entries. */
const SWEEP_MS = 1000;

const NO_PREFIXES = { queries: 0, hits: 0, queryTokens: 0, hitTokens: 0, bytes: 0, tiers: [] };

export interface StoresOptions {
  readonly manifest: Pick<Manifest, "modelHash" | "state">;
  readonly log: Log;
  /** A snapshot was damaged, and has been removed. */
  readonly onDamage: () => void;
  /** Unix time in milliseconds. */
  readonly nowMs: () => number;
  readonly repeat?: Repeat;
}

export interface Stores {
  readonly conversations: StateStore;
  /**
   * Memory alone, for responses that are not to be stored; shares the bound of the other's memory.
   */
  readonly unstored: StateStore;
  /** Undefined if it is disabled. */
  readonly prefixCache: PrefixCache | undefined;
  readonly stats: {
    conversations(): TieredStats;
    /** Zeros if it is disabled. */
    prefixes(): PrefixCacheStats & Pick<TieredStats, "tiers">;
  };
  /**
   * @throws `store_unavailable` if another server may be using a folder now, or if a Valkey server is
   * required and cannot be used
   */
  check(): Promise<void>;
  /** Writes what is not written yet. */
  close(): Promise<void>;
}

/**
 * @throws `store_in_use` if another server uses the folder; `store_unavailable` if that is unusable,
 * or a Valkey server that is required
 */
export async function openStores(config: SizedConfig, options: StoresOptions): Promise<Stores> {
  const conversations = await openConversations(config, options);
  const openRest = async () => {
    if (config.storeRequired) await conversations.check();
    return openPrefixes(config, options);
  };
  const prefixes = await openRest().catch(async (error) => {
    await conversations.close();
    throw error;
  });
  const opened = prefixes === undefined ? [conversations] : [conversations, prefixes.store];
  await Promise.all(opened.map(probe));
  const { repeat = repeatInBackground } = options;
  const stopSweeping = repeat(SWEEP_MS, () => {
    for (const store of opened) store.sweep();
  });
  return {
    conversations,
    unstored: conversations.memory,
    prefixCache: prefixes?.cache,
    stats: {
      conversations: () => conversations.stats(),
      prefixes: () =>
        prefixes === undefined ? NO_PREFIXES : { ...prefixes.cache.stats(), tiers: prefixes.store.stats().tiers },
    },
    async check() {
      await Promise.all(opened.map((store) => store.check()));
    },
    async close() {
      stopSweeping();
      await Promise.all(opened.map((store) => store.close()));
    },
  };
}

/** How long sessions and responses live, and how many one API key may have. */
export function retentionPolicy(config: Config): RetentionPolicy {
  const { sessionTtlMs, responseTtlMs, sessionsPerKey, sessionBytesPerKey } = config;
  return {
    maxCheckpoints: config.checkpointsPerSession,
    maxCheckpointBytes: config.checkpointBytesPerSession,
    ...(sessionTtlMs > 0 && { sessionTtlMs }),
    ...(responseTtlMs > 0 && { responseTtlMs }),
    ...(sessionsPerKey > 0 && { maxSessions: sessionsPerKey }),
    ...(sessionBytesPerKey > 0 && { maxBytes: sessionBytesPerKey }),
  };
}

function openConversations(config: SizedConfig, options: StoresOptions): Promise<TieredStore> {
  const { storeDir, storeBytes } = config;
  return openStore({
    ...commonOptions(config, options, "conversations"),
    memoryBytes: config.sessionBytes,
    ownerOf,
    ...(storeDir !== undefined && { disk: { dir: path.join(storeDir, "conversations"), maxBytes: storeBytes } }),
    ...valkeyOptions(config),
    isSharedRequired: config.storeRequired,
  });
}

/**
 * A store of its own: prompts, which anyone may send, must not evict sessions.
 * @returns undefined if it is disabled
 */
async function openPrefixes(config: SizedConfig, options: StoresOptions) {
  const { storeDir, prefixBytes, prefixDiskBytes, sharePrefixes } = config;
  if (prefixBytes === 0) return undefined;
  const isOnDisk = storeDir !== undefined && prefixDiskBytes > 0;
  const common = commonOptions(config, options, "prefixes");
  const store = await openStore({
    ...common,
    memoryBytes: prefixBytes,
    ...(isOnDisk && { disk: { dir: path.join(storeDir, "prefixes"), maxBytes: prefixDiskBytes } }),
    ...(sharePrefixes && valkeyOptions(config)),
  });
  const { model, nowMs } = common;
  const cache = new PrefixCache({ store, model, nowMs, ...(sharePrefixes && { ttlMs: SHARED_PREFIX_TTL_MS }) });
  return { store, cache };
}

function commonOptions(
  config: Config,
  { manifest, log, onDamage, nowMs }: StoresOptions,
  store: "conversations" | "prefixes",
): Pick<OpenStoreOptions, "model" | "precision" | "nowMs" | "observer"> {
  const { modelHash, state } = manifest;
  const isHalf = hasHalfStates(manifest);
  const observer: StoreObserver = {
    onTier({ name: tier, way, isAvailable, message }) {
      if (isAvailable) log.info({ store, tier, way }, message);
      else log.warn({ store, tier, way }, message);
    },
    onDamage(message) {
      log.warn({ store }, message);
      onDamage();
    },
    onWarning(message) {
      // A lost prefix is no loss: it can be computed again.
      if (store === "conversations") log.warn({ store }, message);
    },
  };
  return {
    model: { modelHash, stateBytes: stateBytes(state), isHalf },
    precision: config.storePrecision,
    nowMs,
    observer,
  };
}

function valkeyOptions({ valkeyUrl: url, valkeyPrefix: keyPrefix, valkeyTimeoutMs: timeoutMs }: Config) {
  return url === undefined ? {} : { valkey: { url, keyPrefix, timeoutMs } };
}

/** Asks once, so that an unreachable server is reported at the start, not by the first request. */
async function probe(store: StateStore): Promise<void> {
  try {
    await store.has("any");
  } catch (error) {
    // The observer has logged it. No reason not to start: it may come back.
    if (!(error instanceof DenseMambaError)) throw error;
  }
}
