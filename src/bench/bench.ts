/**
 * `densemamba bench`: what this machine reaches, as tables and one last JSON line. Opens with the physics (the memory's
 * read bandwidth: a decode step reads every weight once) and compares within the run, since machines drift.
 */
import { availableParallelism, cpus } from "node:os";
import type { Engine } from "../engine/engine.ts";
import { measureReadBandwidth } from "./bandwidth.ts";
import { type Figure, formatTable, holds, median, percentile } from "./report.ts";
import { MAX_BATCH, randomArtifact, type ShapeName, withEngine, withRunner } from "./rig.ts";
import { compareDecodeMs, measureDecodeMs, measurePrefillRate } from "./runner-rates.ts";
import { ServerProcess } from "./server-process.ts";
import { measureInterference, measureLongSession, measureThroughput } from "./streams.ts";

export const SUITES = ["streams", "interference", "session", "shape", "links"] as const;
export type Suite = (typeof SUITES)[number];

export interface BenchOptions {
  readonly suites: readonly Suite[];
  /** Checkpoint folder of the model that `streams`, `interference` and `session` run. */
  readonly modelDir: string;
  /** Random weights of this shape for the `shape` suite. */
  readonly shape: ShapeName;
  readonly runtime: "native" | "portable";
  /** 0: all physical cores. */
  readonly threads: number;
  readonly cacheDir: string;
  /** Tokens of the `session` suite. */
  readonly sessionTokens: number;
  readonly print: (line: string) => void;
}

interface Context extends BenchOptions {
  readonly bandwidth: number;
}

const GIGA = 1e9;

export async function runBench(options: BenchOptions): Promise<void> {
  const numThreads = options.threads === 0 ? availableParallelism() : options.threads;
  const bandwidth = await measureReadBandwidth(numThreads);
  const context: Context = { ...options, bandwidth };
  const machine = {
    cpu: cpus()[0]?.model ?? "unknown",
    threads: numThreads,
    node: process.version,
    runtime: options.runtime,
  };
  options.print(`${machine.cpu}, ${numThreads} threads, Node ${machine.node}, ${options.runtime} runtime`);

  const results: Record<string, readonly Figure[]> = {
    machine: [{ name: "memory read bandwidth", value: bandwidth / GIGA, unit: "GB/s" }],
  };
  options.print(`\n${formatTable("machine", results.machine!)}`);
  for (const suite of options.suites) {
    results[suite] = await runSuite(suite, context);
    options.print(`\n${formatTable(suite, results[suite])}`);
  }
  const figures = Object.entries(results).flatMap(([suite, rows]) =>
    rows.map((row) => ({ suite, name: row.name, value: row.value, unit: row.unit, kept: holds(row) })),
  );
  options.print(`\n${JSON.stringify({ date: new Date().toISOString(), machine, figures })}`);
}

function runSuite(suite: Suite, context: Context): Promise<Figure[]> {
  switch (suite) {
    case "streams":
      return benchStreams(context);
    case "interference":
      return withEngine(context, context.modelDir, benchInterference);
    case "session":
      return withEngine(context, context.modelDir, (engine) => benchSession(engine, context.sessionTokens));
    case "shape":
      return benchShape(context);
    case "links":
      return benchLinks(context);
  }
}

/**
 * One stream and 32: straight from the engine, and over SSE from a server in another process. Taken in turns, and the
 * ratios formed within a round, since the machine's speed drifts.
 */
async function benchStreams(context: Context): Promise<Figure[]> {
  const args = ["--model", context.modelDir, "--runtime", context.runtime, "--threads", String(context.threads)];
  const server = await ServerProcess.start([
    ...args,
    "--max-batch",
    String(MAX_BATCH),
    "--cache-dir",
    context.cacheDir,
  ]);
  try {
    const rounds = await withEngine(context, context.modelDir, async (engine) => {
      await measureThroughput(engine, 1, 500); // warm-up
      await server.streamCompletion(500, 0);
      const measured: StreamRound[] = [];
      for (let round = 0; round < 7; round++) measured.push(await measureStreams(engine, server, round));
      return measured;
    });
    const of = (rate: (round: StreamRound) => number) => median(rounds.map(rate));
    return [
      { name: "engine, 1 stream", value: of((r) => r.engineOne), unit: "tokens/s", ...atLeast(1500) },
      { name: "engine, 32 streams together", value: of((r) => r.engineMany), unit: "tokens/s" },
      { name: "32 streams / 1 stream", value: of((r) => r.engineMany / r.engineOne), unit: "x", ...atLeast(3) },
      { name: "over SSE, 1 stream, as the client counts", value: of((r) => r.sseOne), unit: "tokens/s" },
      { name: "SSE / engine, 1 stream", value: of((r) => r.sseOne / r.engineOne), unit: "x", ...atLeast(0.8) },
      { name: "over SSE, 32 streams together", value: of((r) => r.sseMany), unit: "tokens/s" },
      { name: "SSE / engine, 32 streams", value: of((r) => r.sseMany / r.engineMany), unit: "x" },
    ];
  } finally {
    await server.stop();
  }
}

/** Tokens per second. */
interface StreamRound {
  readonly engineOne: number;
  readonly engineMany: number;
  readonly sseOne: number;
  readonly sseMany: number;
}

async function measureStreams(engine: Engine, server: ServerProcess, salt: number): Promise<StreamRound> {
  const engineOne = await measureThroughput(engine, 1, 1000);
  const sseOne = rateOf([await server.streamCompletion(1000, salt)]);
  const engineMany = await measureThroughput(engine, MAX_BATCH, 100);
  const many = Array.from({ length: MAX_BATCH }, (_, i) => server.streamCompletion(100, i));
  return { engineOne, engineMany, sseOne, sseMany: rateOf(await Promise.all(many)) };
}

/** Chunks per second while all streams run: a chunk carries one token. */
function rateOf(streams: readonly (readonly number[])[]): number {
  const fromMs = Math.max(...streams.map((arrivals) => arrivals[0]!));
  const toMs = Math.min(...streams.map((arrivals) => arrivals.at(-1)!));
  const numInside = streams.reduce(
    (sum, arrivals) => sum + arrivals.filter((atMs) => atMs > fromMs && atMs <= toMs).length,
    0,
  );
  return (numInside / (toMs - fromMs)) * 1000;
}

/** The first token of short prompts while all other slots decode. */
async function benchInterference(engine: Engine): Promise<Figure[]> {
  const { firstTokenMs, stepMs } = await measureInterference(engine, {
    numStreams: MAX_BATCH - 1,
    promptLength: 32,
    numArrivals: 200,
  });
  const step = median(stepMs);
  return [
    { name: "median step, 31 streams decoding", value: step, unit: "ms" },
    { name: "p99 step", value: percentile(stepMs, 99), unit: "ms" },
    { name: "median first token, 32-token prompt", value: median(firstTokenMs), unit: "ms" },
    { name: "p99 first token", value: percentile(firstTokenMs, 99), unit: "ms" },
    {
      name: "p99 first token / median step",
      value: percentile(firstTokenMs, 99) / step,
      unit: "x",
      bound: { op: "<=", value: 10 },
    },
  ];
}

async function benchSession(engine: Engine, numTokens: number): Promise<Figure[]> {
  const session = await measureLongSession(engine, numTokens);
  return [
    { name: `first tenth of ${numTokens} tokens`, value: session.firstRate, unit: "tokens/s" },
    { name: "last tenth", value: session.lastRate, unit: "tokens/s" },
    { name: "first tenth / fresh sequences beside it", value: session.firstRelative, unit: "x" },
    { name: "last tenth / fresh sequences beside it", value: session.lastRelative, unit: "x" },
    { name: "last / first", value: session.lastRelative / session.firstRelative, unit: "x", ...atLeast(0.97) },
    { name: "resident memory", value: session.bytesPerToken, unit: "bytes/token" },
  ];
}

/** Random weights of one shape: decode and prefill in 8 bits and in f32, beside what the memory allows. */
async function benchShape(context: Context): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const precision of ["f32", "int8"] as const) {
    const artifact = await randomArtifact(context, context.shape, precision);
    await withRunner(context, artifact.dir, async (runner) => {
      const one = await measureDecodeMs(runner, 1, 100);
      const many = await measureDecodeMs(runner, MAX_BATCH, 20);
      const prefill = await measurePrefillRate(runner, 512, 512, 5);
      // A step reads every weight once: these shapes tie the embedding to the head, which is read whole.
      const weightBytes = Math.max(...artifact.manifest.files.map((file) => file.bytes));
      const floorMs = (weightBytes / context.bandwidth) * 1000;
      const bounded = precision === "int8" && context.shape === "mamba-130m";
      figures.push(
        { name: `${precision} decode, 1 sequence`, value: one, unit: "ms/token", ...(bounded && atMost(5.5)) },
        { name: `${precision} the bandwidth allows`, value: floorMs, unit: "ms/token" },
        {
          name: `${precision} decode, ${MAX_BATCH} sequences`,
          value: (MAX_BATCH / many) * 1000,
          unit: "tokens/s",
          ...(bounded && atLeast(600)),
        },
        { name: `${precision} prefill, 512 tokens`, value: prefill, unit: "tokens/s", ...(bounded && atLeast(500)) },
      );
    });
  }
  return figures;
}

/** What m = 2 dense links cost against m = 0, steps taken in turns. */
async function benchLinks(context: Context): Promise<Figure[]> {
  const plain = await randomArtifact(context, "mamba-130m", "int8");
  const dense = await randomArtifact(context, "densemamba-130m", "int8");
  return withRunner(context, plain.dir, (plainRunner) =>
    withRunner(context, dense.dir, async (denseRunner) => {
      const { aMs, bMs } = await compareDecodeMs(plainRunner, denseRunner, 1, 20);
      return [
        { name: "decode step, m = 0", value: aMs, unit: "ms" },
        { name: "decode step, m = 2", value: bMs, unit: "ms" },
        { name: "cost of the links", value: (bMs / aMs - 1) * 100, unit: "%", bound: { op: "<=", value: 25 } },
      ] satisfies Figure[];
    }),
  );
}

function atMost(value: number): Pick<Figure, "bound"> {
  return { bound: { op: "<=", value } };
}

function atLeast(value: number): Pick<Figure, "bound"> {
  return { bound: { op: ">=", value } };
}
