/**
 * The metrics: names, meanings, buckets. A metric that vLLM also has has the same name under our
 * prefix. As in vLLM, a "request" is one sequence: a prompt × a choice. Documented in
 * docs/metrics.md.
 */
import { monitorEventLoopDelay } from "node:perf_hooks";
import { Counter, collectDefaultMetrics, Gauge, Histogram, type Registry } from "prom-client";
import { collectEventLoopLag } from "./event-loop.ts";

const PREFIX = "densemamba_";

/** From 0.1 ms: a small model decodes a token in well under a millisecond. */
const TOKEN_SECONDS = [
  0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05,
  0.075, 0.1, 0.2, 0.5, 1, 5,
];
const REQUEST_SECONDS = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 1200,
];
const COPY_SECONDS = [0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1];
const TOKENS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 1_000_000];

export type PoolInstruments = ReturnType<typeof createPoolInstruments>;

/** Of each of several models. */
export function createPoolInstruments(registry: Registry) {
  const registers = [registry];
  return {
    loads: new Counter({ name: `${PREFIX}model_loads_total`, help: "Times that the model was loaded.", registers }),
    unloads: new Counter({ name: `${PREFIX}model_unloads_total`, help: "Times that it was unloaded.", registers }),
    loadSeconds: new Histogram({
      name: `${PREFIX}model_load_seconds`,
      help: "Loading the model, with the time until there was room.",
      buckets: REQUEST_SECONDS,
      registers,
    }),
    loadedBytes: new Gauge({
      name: `${PREFIX}model_loaded_bytes`,
      help: "Memory that the model's weights and slots take; 0 while it is unloaded.",
      registers,
    }),
  };
}

export type Instruments = ReturnType<typeof createInstruments>;

/** Of the process: memory, CPU, garbage collection. @param now milliseconds, monotonic */
export function collectProcessMetrics(registry: Registry, now: () => number): void {
  collectDefaultMetrics({ register: registry });
  for (const { name } of registry.getMetricsAsArray()) {
    // Remove sums of gauges that are named like counters, and the event loop's lag, which we
    // measure ourselves.
    if (/^nodejs_(?:active_\w+_total|eventloop_lag_.+)$/.test(name)) registry.removeSingleMetric(name);
  }
  const delays = monitorEventLoopDelay({ resolution: 10 });
  delays.enable();
  collectEventLoopLag({ registry, histogram: delays, now });
}

export function createInstruments(registry: Registry) {
  const registers = [registry];
  const counter = <L extends string = never>(name: string, help: string, labelNames: readonly L[] = []) =>
    new Counter<L>({ name: PREFIX + name, help, labelNames: [...labelNames], registers });
  const gauge = <L extends string = never>(name: string, help: string, labelNames: readonly L[] = []) =>
    new Gauge<L>({ name: PREFIX + name, help, labelNames: [...labelNames], registers });
  const histogram = <L extends string = never>(
    name: string,
    help: string,
    buckets: number[],
    labelNames: readonly L[] = [],
  ) => new Histogram<L>({ name: PREFIX + name, help, buckets, labelNames: [...labelNames], registers });

  return {
    // The engine.
    numRunning: gauge("num_requests_running", "Sequences in a slot."),
    numWaiting: gauge("num_requests_waiting", "Sequences in the queue."),
    numSuspended: gauge("num_requests_suspended", "Sequences without a slot until their clients catch up."),
    slotsInUse: gauge("slots_in_use", "Slots that hold a sequence's state."),
    slotsTotal: gauge("slots", "Slots of the runtime."),
    queueCapacity: gauge("queue_capacity", "Sequences that may wait; further ones are refused."),
    engineStatus: gauge("engine_status", "1 for the engine's current state, 0 for the others.", ["state"]),
    engineFaults: counter("engine_faults_total", "Runtime faults after which the engine opened a new runner."),
    stepSeconds: histogram("step_duration_seconds", "One engine step: schedule, run, postprocess.", TOKEN_SECONDS),
    stepBatch: histogram(
      "step_decode_batch_size",
      "Sequences decoded together in one step.",
      [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024],
    ),

    // Tokens.
    promptTokens: counter("prompt_tokens_total", "Prompt tokens of finished requests, including cached ones."),
    prefillTokens: counter("prefill_tokens_total", "Prompt tokens read, counted at each step."),
    generationTokens: counter("generation_tokens_total", "Tokens sampled."),
    cacheQueries: counter("prefix_cache_queries_total", "Prompt tokens looked up in cached states."),
    cacheHits: counter(
      "prefix_cache_hits_total",
      "Prompt tokens that a cached state covered, and that were not read again.",
    ),

    grammarSeconds: histogram("grammar_compile_seconds", "Compiling a constraint on an answer.", COPY_SECONDS),

    prefixLookups: counter("prefix_cache_lookups_total", "Prompts looked up in the prefix cache."),
    prefixLookupHits: counter("prefix_cache_lookup_hits_total", "Lookups that found a cached prefix."),
    prefixHitTokens: counter("prefix_cache_hit_tokens_total", "Tokens of the prefixes that lookups found."),
    prefixBytes: gauge("prefix_cache_bytes", "Memory that the prefix cache takes."),

    // Requests, when they finish.
    requests: counter("request_success_total", "Finished requests by reason.", ["finished_reason"]),
    firstTokenSeconds: histogram("time_to_first_token_seconds", "Arrival to first token.", REQUEST_SECONDS),
    interTokenSeconds: histogram(
      "inter_token_latency_seconds",
      "Time between consecutive tokens of a sequence.",
      TOKEN_SECONDS,
    ),
    tokenSeconds: histogram(
      "request_time_per_output_token_seconds",
      "Mean time between a request's tokens, after the first.",
      TOKEN_SECONDS,
    ),
    requestSeconds: histogram("e2e_request_latency_seconds", "Arrival to last token.", REQUEST_SECONDS),
    queueSeconds: histogram("request_queue_time_seconds", "Arrival to slot.", REQUEST_SECONDS),
    prefillSeconds: histogram("request_prefill_time_seconds", "Slot to first token.", REQUEST_SECONDS),
    decodeSeconds: histogram("request_decode_time_seconds", "First token to last.", REQUEST_SECONDS),
    requestPromptTokens: histogram("request_prompt_tokens", "Prompt tokens of a request.", TOKENS),
    requestGenerationTokens: histogram("request_generation_tokens", "Tokens sampled for a request.", TOKENS),

    // States and sessions.
    stateBytes: gauge("state_bytes_per_session", "Bytes of one sequence's state, however long the sequence."),
    storedSnapshots: gauge("store_snapshots", "Stored states of sessions and responses."),
    storeBytes: gauge("store_bytes", "Memory that stored states take."),
    storeMaxBytes: gauge("store_max_bytes", "Memory that stored states may take."),
    storeEvictions: counter("store_evictions_total", "Stored states that were evicted to stay within that bound."),
    tierAvailable: gauge("store_tier_available", "1 while a tier of the store is available.", ["store", "tier"]),
    tierSnapshots: gauge("store_tier_snapshots", "States in a tier.", ["store", "tier"]),
    tierBytes: gauge("store_tier_bytes", "Bytes that a tier's states take.", ["store", "tier"]),
    tierFailures: counter("store_tier_failures_total", "Requests that a tier failed to answer.", ["store", "tier"]),
    damagedSnapshots: counter("store_damaged_snapshots_total", "Stored states that were damaged, and removed."),
    captureSeconds: histogram("snapshot_capture_seconds", "Copying a state out of its slot.", COPY_SECONDS),
    restoreSeconds: histogram("snapshot_restore_seconds", "Copying a state into a slot.", COPY_SECONDS),

    // Transports.
    httpRequests: counter("http_requests_total", "HTTP requests answered.", ["method", "route", "status"]),
    httpSeconds: histogram("http_request_duration_seconds", "HTTP request to last byte.", REQUEST_SECONDS, ["route"]),
    webSockets: gauge("websocket_connections", "Open WebSocket connections."),
    unattendedResponses: gauge("responses_unattended", "Running responses without a client."),

    droppedLogLines: counter("log_lines_dropped_total", "Log lines dropped because they could not be written."),

    modelInfo: gauge("model_info", "Always 1; the labels say what is served.", [
      "family",
      "precision",
      "model_hash",
      "version",
    ]),
    modelParameters: gauge("model_parameters", "Parameters of the model."),
  };
}
