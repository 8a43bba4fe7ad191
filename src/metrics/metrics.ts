/**
 * Observes the engine and the transports, and answers scrapes. Events are counted as they happen;
 * levels (slots, stored states) are read at the scrape. Knows no HTTP server and no runtime.
 */
import { setImmediate } from "node:timers/promises";
import { type Counter, Registry } from "prom-client";
import type { EngineLoad } from "../engine/admitted-sequences.ts";
import type { EngineObserver, EngineStatus, StepReport } from "../engine/observer.ts";
import type { SequenceTimings } from "../engine/sequence.ts";
import type { Manifest } from "../model/artifact.ts";
import { stateBytes } from "../model/state.ts";
import type { PrefixCacheStats } from "../prefix/prefix-cache.ts";
import type { StoreStats } from "../sessions/stores/store.ts";
import type { StoreObserver, TierStats } from "../sessions/stores/tier.ts";
import {
  collectProcessMetrics,
  createInstruments,
  createPoolInstruments,
  type Instruments,
  type PoolInstruments,
} from "./instruments.ts";

export interface MetricsOptions {
  readonly modelName: string;
  readonly manifest: Manifest;
  /** Whether this is one of several models; `other` if another one counts what is the process's. */
  readonly pooled?: "first" | "other";
  /** The program's, for `densemamba_model_info`. */
  readonly version: string;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
}

/** Read at each scrape. */
export interface MetricsSources {
  readonly load: () => EngineLoad;
  readonly store: () => StoreStats & { readonly tiers?: readonly TierStats[] };
  readonly droppedLogLines?: () => number;
  /** Default: there is no prefix cache. */
  readonly prefixes?: () => PrefixCacheStats & { readonly tiers?: readonly TierStats[] };
}

/**
 * Methods counted by name. All others share one label: clients must not be able to create series.
 */
const METHODS: ReadonlySet<string> = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);
const STATES: readonly EngineStatus["state"][] = ["starting", "ready", "sleeping", "recovering", "closed"];

export class Metrics implements EngineObserver, Pick<StoreObserver, "onDamage"> {
  readonly #registry = new Registry();
  readonly #instruments: Instruments;
  readonly #pool: PoolInstruments | undefined;
  readonly #now: () => number;
  #sources: MetricsSources | undefined;
  #lastStepAtMs: number | undefined;
  /** For totals that are counted elsewhere: what our counter has, by counter and label. */
  readonly #counted = new Map<Counter<string>, Map<string, number>>();
  #state: EngineStatus["state"] = "starting";

  constructor({ modelName, manifest, pooled, version, now }: MetricsOptions) {
    this.#now = now;
    this.#registry.setDefaultLabels({ model_name: modelName });
    if (pooled !== "other") collectProcessMetrics(this.#registry, now);
    this.#instruments = createInstruments(this.#registry);
    this.#pool = pooled && createPoolInstruments(this.#registry);
    const { family, precision, modelHash } = manifest;
    this.#instruments.modelInfo.set({ family, precision, model_hash: modelHash.slice(0, 16), version }, 1);
    this.#instruments.modelParameters.set(manifest.numParameters);
    this.#instruments.stateBytes.set(stateBytes(manifest.state));
    this.onStatus({ state: "starting" });
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** Scrapes read `sources` from now on. The engine, one of them, is created after this. */
  watch(sources: MetricsSources): void {
    this.#sources = sources;
  }

  /** The text of a scrape. */
  async render(): Promise<string> {
    if (this.#sources !== undefined) this.#read(this.#sources);
    return this.#registry.metrics();
  }

  /** The same of several models: each metric once, with the samples of all. */
  static async renderAll(all: readonly Metrics[]): Promise<string> {
    const samples = new Map<string, string[]>();
    for (const metrics of all) {
      // prom-client's own merging would take a long time in one go.
      for (const block of (await metrics.render()).trimEnd().split(/\n+(?=# HELP )/)) {
        const [help, type, ...lines] = block.split("\n");
        const head = `${help}\n${type}`;
        const before = samples.get(head);
        if (before === undefined) samples.set(head, lines);
        else before.push(...lines);
      }
      await setImmediate();
    }
    return `${[...samples].map(([head, lines]) => [head, ...lines].join("\n")).join("\n\n")}\n`;
  }

  onLoaded({ durationMs, bytes }: { readonly durationMs: number; readonly bytes: number }): void {
    this.#pool?.loads.inc();
    this.#pool?.loadSeconds.observe(durationMs / 1000);
    this.#pool?.loadedBytes.set(bytes);
  }

  onUnloaded(): void {
    this.#pool?.unloads.inc();
    this.#pool?.loadedBytes.set(0);
  }

  onGrammar({ durationMs }: { readonly durationMs: number }): void {
    this.#instruments.grammarSeconds.observe(durationMs / 1000);
  }

  onStep(step: StepReport): void {
    const instruments = this.#instruments;
    const nowMs = this.#now();
    instruments.stepSeconds.observe(step.durationMs / 1000);
    if (step.numPromptTokens > 0) instruments.prefillTokens.inc(step.numPromptTokens);
    if (step.numDecodeTokens > 0) {
      instruments.stepBatch.observe(step.numDecodeTokens);
      instruments.generationTokens.inc(step.numDecodeTokens);
      // Every step decodes all sequences that already have a token, which came from the step
      // before: so for each of them the time from step to step is the time from token to token,
      // including prompt chunks and overheads.
      const gapSeconds = (nowMs - (this.#lastStepAtMs ?? nowMs - step.durationMs)) / 1000;
      for (let token = 0; token < step.numDecodeTokens; token++) instruments.interTokenSeconds.observe(gapSeconds);
    }
    this.#lastStepAtMs = nowMs;
  }

  onSequenceEnd({ reason, timings }: Parameters<EngineObserver["onSequenceEnd"]>[0]): void {
    const instruments = this.#instruments;
    instruments.requests.inc({ finished_reason: reason });
    instruments.promptTokens.inc(timings.numPromptTokens);
    instruments.cacheQueries.inc(timings.numPromptTokens);
    instruments.cacheHits.inc(timings.numCachedTokens);
    instruments.requestPromptTokens.observe(timings.numPromptTokens);
    instruments.requestGenerationTokens.observe(timings.numOutputTokens);
    // Steps report the tokens that they decode; a sequence's first token comes from its prompt's
    // last chunk.
    if (timings.firstTokenAtMs !== undefined) instruments.generationTokens.inc(1);
    // The times of a request that was cut short say nothing about the server's speed.
    if (reason === "stop" || reason === "length") this.#observeTimes(timings);
  }

  onStatus(status: EngineStatus): void {
    for (const state of STATES) this.#instruments.engineStatus.set({ state }, state === status.state ? 1 : 0);
    // The engine reports `recovering` again at each failed attempt: that is still one fault.
    if (status.state === "recovering" && this.#state !== "recovering") this.#instruments.engineFaults.inc();
    this.#state = status.state;
  }

  onSnapshotCaptured(durationMs: number): void {
    this.#instruments.captureSeconds.observe(durationMs / 1000);
  }

  onSnapshotRestored(durationMs: number): void {
    this.#instruments.restoreSeconds.observe(durationMs / 1000);
  }

  onDamage(): void {
    this.#instruments.damagedSnapshots.inc();
  }

  onHttpRequest(request: {
    readonly method: string;
    readonly route: string;
    readonly status: number;
    readonly durationMs: number;
  }): void {
    const { route, status, durationMs } = request;
    const method = METHODS.has(request.method) ? request.method : "other";
    this.#instruments.httpRequests.inc({ method, route, status });
    this.#instruments.httpSeconds.observe({ route }, durationMs / 1000);
  }

  onWebSocketOpen(): void {
    this.#instruments.webSockets.inc();
  }

  onWebSocketClose(): void {
    this.#instruments.webSockets.dec();
  }

  onUnattended(change: 1 | -1): void {
    this.#instruments.unattendedResponses.inc(change);
  }

  #observeTimes(timings: SequenceTimings): void {
    const instruments = this.#instruments;
    const { arrivedAtMs, scheduledAtMs, firstTokenAtMs, finishedAtMs, numOutputTokens } = timings;
    instruments.requestSeconds.observe((finishedAtMs - arrivedAtMs) / 1000);
    instruments.queueSeconds.observe((scheduledAtMs - arrivedAtMs) / 1000);
    if (firstTokenAtMs === undefined) return;
    const decodeSeconds = (finishedAtMs - firstTokenAtMs) / 1000;
    instruments.firstTokenSeconds.observe((firstTokenAtMs - arrivedAtMs) / 1000);
    instruments.prefillSeconds.observe((firstTokenAtMs - scheduledAtMs) / 1000);
    instruments.decodeSeconds.observe(decodeSeconds);
    if (numOutputTokens > 1) instruments.tokenSeconds.observe(decodeSeconds / (numOutputTokens - 1));
  }

  #read(sources: MetricsSources): void {
    const instruments = this.#instruments;
    const load = sources.load();
    instruments.numRunning.set(load.numRunning);
    instruments.numWaiting.set(load.numWaiting);
    instruments.numSuspended.set(load.numSuspended);
    instruments.slotsInUse.set(load.slotsInUse);
    instruments.slotsTotal.set(load.maxBatch);
    instruments.queueCapacity.set(load.maxQueue);
    const store = sources.store();
    instruments.storedSnapshots.set(store.numSnapshots);
    instruments.storeBytes.set(store.bytes);
    instruments.storeMaxBytes.set(store.maxBytes);
    this.#countUpTo(instruments.storeEvictions, store.numEvicted);
    this.#readTiers("conversations", store.tiers);
    this.#countUpTo(instruments.droppedLogLines, sources.droppedLogLines?.() ?? 0);
    const prefixes = sources.prefixes?.();
    if (prefixes === undefined) return;
    this.#countUpTo(instruments.prefixLookups, prefixes.queries);
    this.#countUpTo(instruments.prefixLookupHits, prefixes.hits);
    this.#countUpTo(instruments.prefixHitTokens, prefixes.hitTokens);
    instruments.prefixBytes.set(prefixes.bytes);
    this.#readTiers("prefixes", prefixes.tiers);
  }

  #readTiers(store: "conversations" | "prefixes", tiers: readonly TierStats[] = []): void {
    const instruments = this.#instruments;
    for (const { name: tier, isAvailable, numSnapshots, bytes, numFailures } of tiers) {
      const labels = { store, tier };
      instruments.tierAvailable.set(labels, isAvailable ? 1 : 0);
      instruments.tierSnapshots.set(labels, numSnapshots);
      instruments.tierBytes.set(labels, bytes);
      this.#countUpTo(instruments.tierFailures, numFailures, labels);
    }
  }

  #countUpTo<L extends string>(counter: Counter<L>, total: number, labels: Partial<Record<L, string>> = {}): void {
    const counted = this.#counted.get(counter) ?? new Map<string, number>();
    this.#counted.set(counter, counted);
    const key = Object.values(labels).join();
    counter.inc(labels, total - (counted.get(key) ?? 0));
    counted.set(key, total);
  }
}
