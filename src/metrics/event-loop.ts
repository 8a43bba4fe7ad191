/**
 * The event loop's lag, under prom-client's names. Its own gauges reset at every scrape: a second
 * scrape soon after reads NaN, and two scrapers steal each other's measurements.
 */
import type { IntervalHistogram } from "node:perf_hooks";
import { Gauge, type Registry } from "prom-client";

/** How long to collect before the histogram is reset. */
const WINDOW_MS = 5000;

export interface EventLoopOptions {
  readonly registry: Registry;
  /** Of nanoseconds, already enabled. */
  readonly histogram: Pick<IntervalHistogram, "count" | "min" | "max" | "mean" | "stddev" | "percentile" | "reset">;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
}

/** Registers the gauges. They keep their values until there are new measurements. */
export function collectEventLoopLag({ registry, histogram, now }: EventLoopOptions): void {
  const gauges = {
    min: ["The smallest recent delay of the event loop.", () => histogram.min],
    max: ["The largest recent delay of the event loop.", () => histogram.max],
    mean: ["The mean recent delay of the event loop.", () => histogram.mean],
    stddev: ["The standard deviation of the event loop's recent delays.", () => histogram.stddev],
    p50: ["The median recent delay of the event loop.", () => histogram.percentile(50)],
    p90: ["The 90th percentile of the event loop's recent delays.", () => histogram.percentile(90)],
    p99: ["The 99th percentile of the event loop's recent delays.", () => histogram.percentile(99)],
  } as const;
  let sinceMs = now();
  const [first, ...others] = Object.entries(gauges).map(([name, [help, read]], index) => {
    const gauge = new Gauge({
      name: `nodejs_eventloop_lag_${name}_seconds`,
      help,
      registers: [registry],
      ...(index === 0 && { collect: () => readAll() }),
    });
    return { gauge, read };
  });
  const readAll = () => {
    if (histogram.count === 0) return;
    for (const { gauge, read } of [first!, ...others]) gauge.set(read() / 1e9);
    if (now() - sinceMs < WINDOW_MS) return;
    sinceMs = now();
    histogram.reset();
  };
}
