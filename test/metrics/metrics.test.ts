import { readFileSync } from "node:fs";
import { Registry } from "prom-client";
import { describe, expect, it } from "vitest";
import type { SequenceTimings } from "../../src/engine/sequence.ts";
import { collectEventLoopLag } from "../../src/metrics/event-loop.ts";
import { createInstruments, createPoolInstruments } from "../../src/metrics/instruments.ts";
import { Metrics } from "../../src/metrics/metrics.ts";
import type { Manifest } from "../../src/model/artifact.ts";

const MANIFEST: Manifest = {
  formatVersion: 1,
  compilerVersion: "0",
  modelHash: "0123456789abcdef0123",
  name: "tiny",
  family: "dense_mamba",
  precision: "int8",
  sizes: { vocabSize: 8, hiddenSize: 4, numLayers: 1, denseLayers: 0 },
  numParameters: 1234,
  bosTokenId: null,
  eosTokenIds: [],
  state: [{ name: "ssm.0", shape: [4, 8] }],
  graph: "model.onnx",
  files: [],
};

const TIMINGS: SequenceTimings = {
  arrivedAtMs: 1000,
  scheduledAtMs: 1010,
  firstTokenAtMs: 1030,
  finishedAtMs: 1130,
  numPromptTokens: 30,
  numCachedTokens: 20,
  numOutputTokens: 11,
};

const STEP = { durationMs: 2, numPromptTokens: 0, numDecodeTokens: 0, numRunning: 1, numWaiting: 0 };

function setUp() {
  const clock = { nowMs: 0 };
  const metrics = new Metrics({ modelName: "tiny", manifest: MANIFEST, version: "1.2.3", now: () => clock.nowMs });
  return { clock, metrics };
}

/** `name{labels}` without model_name → value. Fails on a line that is not in the text format. */
async function scrape(metrics: Metrics): Promise<Map<string, number>> {
  const samples = new Map<string, number>();
  for (const line of (await metrics.render()).split("\n")) {
    if (line === "" || /^# (HELP|TYPE) [a-z_0-9]+ .+/.test(line)) continue;
    const [, name, labels, value] = /^([a-z_0-9]+)\{(.*)\} (\S+)$/.exec(line) ?? [];
    if (name === undefined || labels === undefined) throw new Error(`not a sample: ${line}`);
    expect(labels).toContain('model_name="tiny"');
    const others = labels.split(/,(?=[a-z_]+=")/).filter((label) => !label.startsWith("model_name="));
    samples.set(others.length > 0 ? `${name}{${others.join(",")}}` : name, Number(value));
  }
  return samples;
}

describe("a scrape of several models", () => {
  const linesOf = (text: string) => text.split("\n").filter((line) => line !== "");
  const metricsOf = (modelName: string, pooled: "first" | "other") =>
    new Metrics({ modelName, manifest: MANIFEST, version: "1.2.3", now: () => 0, pooled });

  it("has each metric once, with the samples of all models, and the process's once", async () => {
    const [first, other] = [metricsOf("a\n# HELP b", "first"), metricsOf("b", "other")];
    const [alone, both] = [linesOf(await other.render()), linesOf(await Metrics.renderAll([first, other]))];
    expect(linesOf(await Metrics.renderAll([other]))).toEqual(alone);
    const heads = both.filter((line) => line.startsWith("# HELP"));
    expect(new Set(heads).size).toBe(heads.length);
    expect(both.filter((line) => line.includes('model_name="b"'))).toEqual(
      alone.filter((line) => !line.startsWith("#")),
    );
    expect(both.filter((line) => line.startsWith("process_resident_memory_bytes{"))).toHaveLength(1);
    // A sample follows the metric that it is of.
    let head = "";
    for (const line of both) {
      if (line.startsWith("# TYPE ")) head = line.split(" ")[2]!;
      else if (!line.startsWith("#")) expect(line.startsWith(head), `${line} after ${head}`).toBe(true);
    }
  });
});

describe("a scrape", () => {
  it("is in Prometheus' text format and names the model on every sample", async () => {
    const { metrics } = setUp();
    expect(metrics.contentType).toMatch(/^text\/plain; version=0\.0\.4/);
    const samples = await scrape(metrics);
    expect(samples.get("densemamba_state_bytes_per_session")).toBe(4 * 8 * 4);
    expect(samples.get("densemamba_model_parameters")).toBe(1234);
    expect(samples.has("process_resident_memory_bytes")).toBe(true);
  });

  it("reads slots and stored states at that moment", async () => {
    const { metrics } = setUp();
    const load = { numRunning: 1, numWaiting: 2, numSuspended: 6, slotsInUse: 3, maxBatch: 4, maxQueue: 5 };
    const disk = { name: "disk" as const, isAvailable: true, numFailures: 1 };
    const store = { numSnapshots: 6, bytes: 7, maxBytes: 8, numEvicted: 9 };
    const tiers = [
      { ...store, name: "memory" as const, isAvailable: true, numFailures: 0 },
      { ...store, ...disk },
    ];
    const prefixes = { queries: 12, hits: 3, queryTokens: 100, hitTokens: 40, bytes: 50 };
    metrics.watch({
      load: () => load,
      store: () => ({ ...store, tiers }),
      prefixes: () => ({ ...prefixes, tiers: [tiers[1]!] }),
    });
    await scrape(metrics);
    load.slotsInUse = 0;
    store.numEvicted = 11;
    Object.assign(tiers[1]!, { isAvailable: false, numFailures: 4, bytes: 70 });
    metrics.onDamage();
    Object.assign(prefixes, { queries: 14, hits: 5, hitTokens: 70, bytes: 20 });
    const samples = await scrape(metrics);
    const values = ["num_requests_running", "num_requests_waiting", "slots_in_use", "slots", "queue_capacity"];
    expect(values.map((name) => samples.get(`densemamba_${name}`))).toEqual([1, 2, 0, 4, 5]);
    const stored = ["store_snapshots", "store_bytes", "store_max_bytes", "store_evictions_total"];
    expect(stored.map((name) => samples.get(`densemamba_${name}`))).toEqual([6, 7, 8, 11]);
    const reused = ["lookups_total", "lookup_hits_total", "hit_tokens_total", "bytes"];
    expect(reused.map((name) => samples.get(`densemamba_prefix_cache_${name}`))).toEqual([14, 5, 70, 20]);
    const tier = ["available", "snapshots", "bytes", "failures_total"];
    const valuesOf = (labels: string) => tier.map((of) => samples.get(`densemamba_store_tier_${of}{${labels}}`));
    expect(valuesOf('store="conversations",tier="memory"')).toEqual([1, 6, 7, 0]);
    expect(valuesOf('store="conversations",tier="disk"')).toEqual([0, 6, 70, 4]);
    expect(valuesOf('store="prefixes",tier="disk"')).toEqual([0, 6, 70, 4]);
    expect(samples.get("densemamba_store_damaged_snapshots_total")).toBe(1);
  });
});

describe("every sample", () => {
  it("is a number, however close two scrapes are", async () => {
    const { metrics } = setUp();
    // Until the event loop's lag has been measured.
    await expect.poll(() => metrics.render()).toMatch(/^nodejs_eventloop_lag_max_seconds\{.*\} 0\.\d+$/m);
    for (let scrapes = 0; scrapes < 3; scrapes++) {
      const text = await metrics.render();
      expect(text).not.toMatch(/ (?:NaN|Nan|[+-]?Inf)$/m);
      const lags = [...text.matchAll(/^nodejs_eventloop_lag_(\w+)_seconds\{.*\} (\S+)$/gm)];
      expect(lags).toHaveLength(7);
      for (const [, , value] of lags) expect(Number(value)).toBeLessThan(60);
    }
  });

  it("ends in _total if it is a counter, and only then", async () => {
    const { metrics } = setUp();
    const types = [...(await metrics.render()).matchAll(/^# TYPE (\w+) (\w+)$/gm)];
    expect(types.length).toBeGreaterThan(50);
    for (const [, name, type] of types) expect([name, name!.endsWith("_total")]).toEqual([name, type === "counter"]);
  });

  it("has no labels that clients can make up", async () => {
    const { metrics } = setUp();
    for (const method of ["GET", "BREW", "PROPFIND", "x".repeat(1000)]) {
      metrics.onHttpRequest({ method, route: "unmatched", status: 404, durationMs: 1 });
    }
    const samples = await scrape(metrics);
    const counts = [...samples].filter(([name]) => name.startsWith("densemamba_http_requests_total"));
    expect(counts.map(([name, count]) => [/method="(\w+)"/.exec(name)![1], count])).toEqual([
      ["GET", 1],
      ["other", 3],
    ]);
  });
});

describe("the event loop's lag", () => {
  it("keeps its value until there is a new measurement, and is reset only every few seconds", async () => {
    const registry = new Registry();
    let nowMs = 0;
    const histogram = { count: 0, min: 2 ** 63, max: 0, mean: Number.NaN, stddev: Number.NaN, numResets: 0 };
    const reset = () =>
      void Object.assign(histogram, { count: 0, mean: Number.NaN, numResets: histogram.numResets + 1 });
    const parts = Object.assign(histogram, { percentile: () => histogram.mean, reset });
    collectEventLoopLag({ registry, histogram: parts, now: () => nowMs });
    const mean = async () =>
      / (\S+)$/.exec(await registry.getSingleMetricAsString("nodejs_eventloop_lag_mean_seconds"))![1];
    const measure = async () => {
      await registry.metrics();
      return mean();
    };
    Object.assign(histogram, { count: 3, mean: 2e9 });
    expect([await measure(), await measure(), histogram.numResets]).toEqual(["2", "2", 0]);
    nowMs = 6000;
    expect([await measure(), await measure(), histogram.numResets]).toEqual(["2", "2", 1]);
    Object.assign(histogram, { count: 1, mean: 3e9 });
    expect(await measure()).toBe("3");
  });
});

describe("a request's end", () => {
  it("counts its tokens and times once", async () => {
    const { metrics } = setUp();
    metrics.onSequenceEnd({ reason: "length", timings: TIMINGS });
    const samples = await scrape(metrics);
    const value = (name: string) => samples.get(`densemamba_${name}`);
    expect(value('request_success_total{finished_reason="length"}')).toBe(1);
    expect(value("prompt_tokens_total")).toBe(30);
    expect(value("prefix_cache_queries_total")).toBe(30);
    expect(value("prefix_cache_hits_total")).toBe(20);
    expect(value("e2e_request_latency_seconds_sum")).toBeCloseTo(0.13);
    expect(value("request_queue_time_seconds_sum")).toBeCloseTo(0.01);
    expect(value("time_to_first_token_seconds_sum")).toBeCloseTo(0.03);
    expect(value("request_prefill_time_seconds_sum")).toBeCloseTo(0.02);
    expect(value("request_decode_time_seconds_sum")).toBeCloseTo(0.1);
    expect(value("request_time_per_output_token_seconds_sum")).toBeCloseTo(0.01);
  });

  it("leaves aborted and failed requests out of the latencies", async () => {
    const { metrics } = setUp();
    metrics.onSequenceEnd({
      reason: "aborted",
      timings: { ...TIMINGS, firstTokenAtMs: undefined, numOutputTokens: 0 },
    });
    metrics.onSequenceEnd({ reason: "failed", timings: TIMINGS });
    const samples = await scrape(metrics);
    expect(samples.get("densemamba_e2e_request_latency_seconds_count")).toBe(0);
    expect(samples.get("densemamba_time_to_first_token_seconds_count")).toBe(0);
    expect(samples.get('densemamba_request_success_total{finished_reason="aborted"}')).toBe(1);
    expect(samples.get('densemamba_request_success_total{finished_reason="failed"}')).toBe(1);
  });
});

describe("tokens", () => {
  it("counts every sampled token once: a sequence's first when it finishes, the others at each step", async () => {
    const { metrics } = setUp();
    metrics.onStep({ ...STEP, numPromptTokens: 10 });
    for (let step = 0; step < 10; step++) metrics.onStep({ ...STEP, numDecodeTokens: 1 });
    metrics.onSequenceEnd({ reason: "length", timings: TIMINGS });
    const samples = await scrape(metrics);
    expect(samples.get("densemamba_generation_tokens_total")).toBe(TIMINGS.numOutputTokens);
    expect(samples.get("densemamba_prefill_tokens_total")).toBe(10);
  });

  it("measures the time from step to step for each decoded token, including the time between steps", async () => {
    const { clock, metrics } = setUp();
    const step = (atMs: number, numDecodeTokens: number) => {
      clock.nowMs = atMs;
      metrics.onStep({ ...STEP, durationMs: 1, numDecodeTokens });
    };
    step(100, 0); // a prompt's last chunk: its first token
    step(103, 1);
    step(105, 4);
    step(9000, 0); // idle, then another prompt
    step(9001, 1);
    const samples = await scrape(metrics);
    expect(samples.get("densemamba_inter_token_latency_seconds_count")).toBe(6);
    expect(samples.get("densemamba_inter_token_latency_seconds_sum")).toBeCloseTo((3 + 4 * 2 + 1) / 1000);
  });

  it("resolves times far below ten milliseconds", async () => {
    const { clock, metrics } = setUp();
    metrics.onStep({ ...STEP, numPromptTokens: 4 });
    clock.nowMs += 0.25;
    metrics.onStep({ ...STEP, numDecodeTokens: 1 });
    const samples = await scrape(metrics);
    expect(samples.get('densemamba_inter_token_latency_seconds_bucket{le="0.0002"}')).toBe(0);
    expect(samples.get('densemamba_inter_token_latency_seconds_bucket{le="0.0003"}')).toBe(1);
  });
});

describe("the engine's status", () => {
  it("is 1 for exactly one state, and counts faults", async () => {
    const { metrics } = setUp();
    metrics.onStatus({ state: "ready", runner: "fake" });
    metrics.onStatus({ state: "recovering", error: "gone" });
    metrics.onStatus({ state: "recovering", error: "cannot be opened again" });
    metrics.onStatus({ state: "ready", runner: "fake" });
    const samples = await scrape(metrics);
    const states = [...samples].filter(([name]) => name.startsWith("densemamba_engine_status"));
    expect(states.filter(([, value]) => value === 1)).toEqual([['densemamba_engine_status{state="ready"}', 1]]);
    expect(states).toHaveLength(5);
    expect(samples.get("densemamba_engine_faults_total")).toBe(1);
  });
});

describe("transports", () => {
  it("count requests by method, route and status, open connections, and responses without a client", async () => {
    const { metrics } = setUp();
    metrics.onHttpRequest({ method: "POST", route: "/v1/completions", status: 429, durationMs: 3 });
    metrics.onWebSocketOpen();
    metrics.onWebSocketOpen();
    for (const change of [1, 1, -1] as const) metrics.onUnattended(change);
    metrics.onWebSocketClose();
    const samples = await scrape(metrics);
    expect(samples.get('densemamba_http_requests_total{method="POST",route="/v1/completions",status="429"}')).toBe(1);
    expect(samples.get("densemamba_websocket_connections")).toBe(1);
    expect(samples.get("densemamba_responses_unattended")).toBe(1);
  });
});

describe("snapshots", () => {
  it("are timed when a state is copied", async () => {
    const { metrics } = setUp();
    metrics.onSnapshotCaptured(0.5);
    metrics.onSnapshotRestored(0.25);
    const samples = await scrape(metrics);
    expect(samples.get("densemamba_snapshot_capture_seconds_sum")).toBeCloseTo(0.0005);
    expect(samples.get("densemamba_snapshot_restore_seconds_sum")).toBeCloseTo(0.00025);
  });
});

describe("docs/metrics.md", () => {
  it("describes exactly the metrics that exist, by name and type", async () => {
    const registry = new Registry();
    createInstruments(registry);
    createPoolInstruments(registry);
    const own = (await registry.getMetricsAsJSON()).filter(({ name }) => name.startsWith("densemamba_"));
    const registered = own.map(({ name, type }) => `${name} ${String(type)}`);
    const rows = readFileSync("docs/metrics.md", "utf8").matchAll(/^\| `(densemamba_\w+)` \| (\w+) \|/gm);
    const documented = [...rows].map(([, name, type]) => `${name} ${type}`);
    expect(documented.toSorted()).toEqual(registered.toSorted());
  });
});
