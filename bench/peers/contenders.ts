/**
 * The programs that are compared: for each test a way to measure each of them, ours first. They
 * take turns.
 */
import { performance } from "node:perf_hooks";
import {
  type BenchConfig,
  type BenchPrecision,
  MAX_BATCH,
  randomArtifact,
  serveFlags,
  withRunner,
} from "../../src/bench/config.ts";
import { runTogether } from "../../src/bench/load/load.ts";
import { randomPrompt, type ShapeName } from "../../src/bench/random-model.ts";
import { inTurns } from "../../src/bench/rounds.ts";
import { decodeInput, measurePrefill } from "../../src/bench/runner.ts";
import { ServerProcess } from "../../src/bench/server-process.ts";
import { rateTogether } from "../../src/bench/streams.ts";
import type { ModelRunner } from "../../src/runtime/runner.ts";
import type { LlamaTools } from "./install.ts";
import { type LlamaModel, llamaBatchedBench, llamaBench, startLlamaServer } from "./llama-cpp.ts";
import { NodeLlama } from "./node-llama.ts";
import type { NodeLlamaTask } from "./node-llama-worker.ts";
import { type BareTest, LLAMA_CPP, NODE_LLAMA, OURS, type PeerRow } from "./report.ts";
import { largestDifference, likeliestTokens } from "./same-model.ts";
import type { SameWeights } from "./same-weights.ts";

export interface PeersConfig extends BenchConfig {
  readonly tools: LlamaTools;
  /** Path of node-llama-cpp's module; undefined where it could not be installed. */
  readonly nodeLlama: string | undefined;
  readonly numRounds: number;
}

const GENERATED = 128;
const PROMPT = 512;
const TOGETHER_TOKENS = 64;
const SERVED_PROMPT = 8;
const TIMEOUT_MS = 120_000;
const CHECK_PROMPT = 64;
const CHECK_TOKENS = 16;
/** Of a log-probability. Rounding stays far below, another model is far above. */
const MAX_DIFFERENCE = 0.01;

export interface BareTests {
  readonly shape: ShapeName;
  readonly weights: SameWeights;
  readonly precision: BenchPrecision;
  readonly tests: readonly BareTest[];
  readonly onRow: (row: PeerRow) => void;
  readonly print: (line: string) => void;
}

/** Tests without a server, in one precision. */
export async function measureBare(config: PeersConfig, bare: BareTests): Promise<void> {
  const { shape, precision } = bare;
  const artifact = await randomArtifact(config, shape, precision);
  const llama = { tools: config.tools, ggufPath: bare.weights.gguf[precision], threads: config.threads };
  const nodeLlama = config.nodeLlama && (await NodeLlama.open(config.nodeLlama, llama.ggufPath, config.threads));
  try {
    await withRunner(config, artifact.dir, async (runner) => {
      await decodeRate(runner, 1, 32); // warm-up
      for (const test of bare.tests) {
        const { ours, theirs, task } = measurementsOf(test, runner, llama);
        const contenders: Record<string, () => Promise<number>> = { [OURS]: ours, [LLAMA_CPP]: theirs };
        if (nodeLlama) {
          const measure = () => nodeLlama.measure(task);
          // Its own warm-up. With AMX it crashes as llama.cpp does (llama-cpp.ts), and has no
          // option against it.
          const failure = await measure().then(
            () => undefined,
            (error: unknown) => error,
          );
          if (failure === undefined) contenders[NODE_LLAMA] = measure;
          else bare.print(`${shape} in ${precision}, ${test}: without node-llama-cpp: ${String(failure)}`);
        }
        bare.onRow({ shape, test, precision, samples: await takeTurns(contenders, config.numRounds) });
      }
    });
  } finally {
    if (nodeLlama) await nodeLlama.close();
  }
}

interface Measurements {
  readonly ours: () => Promise<number>;
  readonly theirs: () => Promise<number>;
  /** For node-llama-cpp. */
  readonly task: NodeLlamaTask;
}

/** In tokens per second. */
function measurementsOf(test: BareTest, runner: ModelRunner, llama: LlamaModel): Measurements {
  switch (test) {
    case "tg128": {
      const task = { kind: "tg", numTokens: GENERATED } as const;
      return { ours: () => decodeRate(runner, 1, GENERATED), theirs: () => llamaBench(llama, task), task };
    }
    case "pp512": {
      const task = { kind: "pp", numTokens: PROMPT } as const;
      return { ours: () => prefillRate(runner), theirs: () => llamaBench(llama, task), task };
    }
    case "batch32": {
      const task = { kind: "batch", numSequences: MAX_BATCH, numTokens: TOGETHER_TOKENS } as const;
      const ours = () => decodeRate(runner, MAX_BATCH, TOGETHER_TOKENS);
      return { ours, theirs: () => llamaBatchedBench(llama, task), task };
    }
  }
}

/** As llama-bench counts: all of the time. */
async function decodeRate(runner: ModelRunner, numSequences: number, numSteps: number): Promise<number> {
  const input = decodeInput(numSequences);
  await runner.run(input); // warm-up
  const startMs = performance.now();
  for (let i = 0; i < numSteps; i++) await runner.run(input);
  return ((numSequences * numSteps) / (performance.now() - startMs)) * 1000;
}

async function prefillRate(runner: ModelRunner): Promise<number> {
  await measurePrefill(runner, PROMPT, PROMPT); // warm-up
  return (PROMPT / (await measurePrefill(runner, PROMPT, PROMPT))) * 1000;
}

/** Both servers run, one idle while the other answers: 32 streams from the same client. */
export async function measureServed(
  config: PeersConfig,
  shape: ShapeName,
  weights: SameWeights,
  precision: BenchPrecision,
): Promise<PeerRow> {
  return withServers(config, weights, precision, async (ours, theirs) => {
    const rate = async ({ baseUrl }: ServerProcess, outputTokens: number) => {
      const load = { numStreams: MAX_BATCH, promptTokens: SERVED_PROMPT, outputTokens, seed: 1, timeoutMs: TIMEOUT_MS };
      return rateTogether(await runTogether({ baseUrl }, load));
    };
    for (const server of [ours, theirs]) await rate(server, 8); // warm-up
    const contenders = {
      [OURS]: () => rate(ours, TOGETHER_TOKENS),
      [LLAMA_CPP]: () => rate(theirs, TOGETHER_TOKENS),
    };
    return { shape, test: "served32", precision, samples: await takeTurns(contenders, config.numRounds) };
  });
}

/**
 * How far apart both servers' log-probabilities are in f32.
 * @throws Error if it is so far that the models differ
 */
export async function checkSameModel(config: PeersConfig, weights: SameWeights): Promise<number> {
  return withServers(config, weights, "f32", async (ours, theirs) => {
    const prompt = randomPrompt(CHECK_PROMPT, 1);
    const difference = largestDifference(
      await likeliestTokens(ours, prompt, CHECK_TOKENS),
      await likeliestTokens(theirs, prompt, CHECK_TOKENS),
    );
    if (difference <= MAX_DIFFERENCE) return difference;
    throw new Error(`log-probabilities differ by ${difference}, more than ${MAX_DIFFERENCE}: not the same model`);
  });
}

async function withServers<T>(
  config: PeersConfig,
  weights: SameWeights,
  precision: BenchPrecision,
  use: (ours: ServerProcess, theirs: ServerProcess) => Promise<T>,
): Promise<T> {
  const flags = ["--model", weights.modelDir, "--precision", precision, "--max-batch", `${MAX_BATCH}`];
  const ours = await ServerProcess.startOwn([...flags, ...serveFlags(config)]);
  try {
    const llama = { tools: config.tools, ggufPath: weights.gguf[precision], threads: config.threads };
    const theirs = await startLlamaServer(llama, MAX_BATCH);
    try {
      return await use(ours, theirs);
    } finally {
      await theirs.stop();
    }
  } finally {
    await ours.stop();
  }
}

/** Each program has been warmed up already. */
async function takeTurns(contenders: Readonly<Record<string, () => Promise<number>>>, numRounds: number) {
  const samples = await inTurns(contenders, { numRounds, numWarmUps: 0 });
  return Object.entries(samples).map(([name, values]) => ({ name, values }));
}
