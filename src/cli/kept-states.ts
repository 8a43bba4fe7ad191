/**
 * Where kept states are, as the configuration has it: one store for what somebody asked to keep, one for prompts'
 * beginnings, each of its own tiers. What happens to a tier goes into the log and the metrics.
 */
import path from "node:path";
import type { Config } from "../config.ts";
import { DenseMambaError } from "../errors.ts";
import type { Manifest } from "../model/artifact.ts";
import { stateBytes } from "../model/state.ts";
import { PrefixCache, type PrefixCacheStats } from "../prefix/prefix-cache.ts";
import type { Log } from "../server/deps.ts";
import type { KeepingPolicy } from "../sessions/conversations.ts";
import { ownerOf } from "../sessions/keys.ts";
import { type Repeat, repeatInBackground } from "../sessions/locks.ts";
import { type OpenStoreOptions, openStore } from "../sessions/stores/open-store.ts";
import type { StateStore } from "../sessions/stores/store.ts";
import type { StoreObserver } from "../sessions/stores/tier.ts";
import type { TieredStats, TieredStore } from "../sessions/stores/tiered-store.ts";
import type { SizedConfig } from "./memory.ts";

/**
 * On a shared server prefixes of prompts expire, so that its policy can tell them from sessions: those do not, unless they
 * are to.
 */
const SHARED_PREFIX_TTL_MS = 86_400_000;

/** Interval between sweeps, each of which removes some expired entries. */
const SWEEP_MS = 1000;

const NO_PREFIXES = { queries: 0, hits: 0, queryTokens: 0, hitTokens: 0, bytes: 0, tiers: [] };

export interface KeptStatesOptions {
  readonly manifest: Pick<Manifest, "modelHash" | "state">;
  readonly log: Log;
  /** A snapshot was damaged, and has been removed. */
  readonly onDamage: () => void;
  /** Unix time in milliseconds. */
  readonly nowMs: () => number;
  readonly repeat?: Repeat;
}

export interface KeptStates {
  readonly conversations: StateStore;
  /** Memory alone, for responses that are not to be stored; within the bound of the other's memory. */
  readonly unstored: StateStore;
  /** Undefined if there is to be none. */
  readonly prefixes: PrefixCache | undefined;
  readonly stats: {
    conversations(): TieredStats;
    /** Zeros if there are none. */
    prefixes(): PrefixCacheStats & Pick<TieredStats, "tiers">;
  };
  /** @throws `store_unavailable` if a folder may be another server's now */
  check(): Promise<void>;
  /** Writes what is not yet written. */
  close(): Promise<void>;
}

/** @throws `invalid_config` if another server uses the folder; `store_unavailable` if the folder cannot be used */
export async function openKeptStates(config: SizedConfig, options: KeptStatesOptions): Promise<KeptStates> {
  const conversations = await openConversations(config, options);
  const prefixes = await openPrefixes(config, options).catch(async (error) => {
    await conversations.close();
    throw error;
  });
  const stores = prefixes === undefined ? [conversations] : [conversations, prefixes.store];
  await Promise.all(stores.map(tryOut));
  const { repeat = repeatInBackground } = options;
  const stopSweeping = repeat(SWEEP_MS, () => {
    for (const store of stores) store.sweep();
  });
  return {
    conversations,
    unstored: conversations.memory,
    prefixes: prefixes?.cache,
    stats: {
      conversations: () => conversations.stats(),
      prefixes: () =>
        prefixes === undefined ? NO_PREFIXES : { ...prefixes.cache.stats(), tiers: prefixes.store.stats().tiers },
    },
    async check() {
      await Promise.all(stores.map((store) => store.check()));
    },
    async close() {
      stopSweeping();
      await Promise.all(stores.map((store) => store.close()));
    },
  };
}

export function keepingPolicy(config: Config): KeepingPolicy {
  const { sessionTtlMs, responseTtlMs, sessionsPerKey, sessionBytesPerKey } = config;
  return {
    ...(sessionTtlMs > 0 && { sessionTtlMs }),
    ...(responseTtlMs > 0 && { responseTtlMs }),
    ...(sessionsPerKey > 0 && { maxSessions: sessionsPerKey }),
    ...(sessionBytesPerKey > 0 && { maxBytes: sessionBytesPerKey }),
  };
}

function openConversations(config: SizedConfig, options: KeptStatesOptions): Promise<TieredStore> {
  const { storeDir, storeBytes } = config;
  return openStore({
    ...common(config, options, "conversations"),
    memoryBytes: config.sessionBytes,
    ownerOf,
    ...(storeDir !== undefined && { disk: { dir: path.join(storeDir, "conversations"), maxBytes: storeBytes } }),
    ...valkey(config),
  });
}

/** Undefined if there are to be none. In a store of its own: what anybody may send must not push out what somebody means to keep. */
async function openPrefixes(config: SizedConfig, options: KeptStatesOptions) {
  const { storeDir, prefixBytes, prefixDiskBytes, sharePrefixes } = config;
  if (prefixBytes === 0) return undefined;
  const isOnDisk = storeDir !== undefined && prefixDiskBytes > 0;
  const given = common(config, options, "prefixes");
  const store = await openStore({
    ...given,
    memoryBytes: prefixBytes,
    ...(isOnDisk && { disk: { dir: path.join(storeDir, "prefixes"), maxBytes: prefixDiskBytes } }),
    ...(sharePrefixes && valkey(config)),
  });
  const { model, nowMs } = given;
  const cache = new PrefixCache({ store, model, nowMs, ...(sharePrefixes && { ttlMs: SHARED_PREFIX_TTL_MS }) });
  return { store, cache };
}

function common(
  config: Config,
  { manifest, log, onDamage, nowMs }: KeptStatesOptions,
  store: "conversations" | "prefixes",
): Pick<OpenStoreOptions, "model" | "precision" | "nowMs" | "observer"> {
  const { modelHash, state } = manifest;
  const isHalf = state.some(({ dtype }) => dtype === "f16");
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
      // Prefixes can be made again.
      if (store === "conversations") log.warn({ store }, message);
    },
  };
  return {
    model: { modelHash, stateBytes: stateBytes(state), isHalf },
    precision: config.statePrecision,
    nowMs,
    observer,
  };
}

function valkey({ valkeyUrl: url, valkeyPrefix: keyPrefix, valkeyTimeoutMs: timeoutMs }: Config) {
  return url === undefined ? {} : { valkey: { url, keyPrefix, timeoutMs } };
}

/** Asks once, so that a server that cannot be reached is told of at the start, and not by the first request. */
async function tryOut(store: StateStore): Promise<void> {
  try {
    await store.has("any");
  } catch (error) {
    // Told already, and no reason not to start: it may come.
    if (!(error instanceof DenseMambaError)) throw error;
  }
}
