/**
 * Who is measured at what: for each test the contenders, ours first, each of which gives tokens per second when it is its
 * turn.
 */
import { join } from "node:path";
import { randomPrompt } from "../load/arrivals.ts";
import { runTogether, togetherRate } from "../load/open-loop.ts";
import {
  type BenchPrecision,
  MAX_BATCH,
  type Rig,
  randomArtifact,
  type ShapeName,
  serveFlags,
  withRunner,
} from "../rig.ts";
import { measureDecodeRate, measurePrefillRate } from "../runner-rates.ts";
import { ServerProcess } from "../server-process.ts";
import type { LlamaTools } from "./install.ts";
import { type LlamaModel, llamaBatchedBench, llamaBench, startLlamaServer } from "./llama-cpp.ts";
import { NodeLlama } from "./node-llama.ts";
import { type BareTest, LLAMA_CPP, NODE_LLAMA, OURS, type PeerRow } from "./result.ts";
import { largestDifference, likeliestTokens } from "./same-model.ts";
import type { SameWeights } from "./same-weights.ts";
import { type Contender, takeTurns } from "./turns.ts";

export interface PeerRig extends Rig {
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

/** Tests without a server, in one precision. */
export async function measureBare(
  rig: PeerRig,
  shape: ShapeName,
  weights: SameWeights,
  precision: BenchPrecision,
  tests: readonly BareTest[],
  onRow: (row: PeerRow) => void,
  print: (line: string) => void,
): Promise<void> {
  const artifact = await randomArtifact(rig, shape, precision);
  const llama: LlamaModel = { tools: rig.tools, ggufPath: weights.gguf[precision], threads: rig.threads };
  const nodeLlama = rig.nodeLlama && (await NodeLlama.open(rig.nodeLlama, llama.ggufPath, rig.threads));
  try {
    await withRunner(rig, artifact.dir, async (runner) => {
      await measureDecodeRate(runner, 1, 32); // warm-up
      const measures: Record<BareTest, readonly Contender["measure"][]> = {
        tg128: [
          () => measureDecodeRate(runner, 1, GENERATED),
          () => llamaBench(llama, { kind: "tg", numTokens: GENERATED }),
          ...(nodeLlama ? [() => nodeLlama.measure({ kind: "tg", numTokens: GENERATED })] : []),
        ],
        pp512: [
          () => measurePrefillRate(runner, PROMPT, PROMPT, 1),
          () => llamaBench(llama, { kind: "pp", numTokens: PROMPT }),
          ...(nodeLlama ? [() => nodeLlama.measure({ kind: "pp", numTokens: PROMPT })] : []),
        ],
        batch32: [
          () => measureDecodeRate(runner, MAX_BATCH, TOGETHER_TOKENS),
          () => llamaBatchedBench(llama, { numSequences: MAX_BATCH, numTokens: TOGETHER_TOKENS }),
          ...(nodeLlama
            ? [() => nodeLlama.measure({ kind: "batch", numSequences: MAX_BATCH, numTokens: TOGETHER_TOKENS })]
            : []),
        ],
      };
      for (const test of tests) {
        const all = measures[test].map((measure, i) => ({ name: [OURS, LLAMA_CPP, NODE_LLAMA][i]!, measure }));
        const contenders: Contender[] = [];
        for (const contender of all) {
          // Its own warm-up. It has the fault with AMX that llama.cpp has (llama-cpp.ts), and nothing to turn that off.
          const failure = contender.name === NODE_LLAMA ? await failureOf(contender) : undefined;
          if (failure === undefined) contenders.push(contender);
          else print(`${shape} in ${precision}, ${test}: without node-llama-cpp: ${failure}`);
        }
        onRow({ shape, test, precision, samples: await takeTurns(contenders, rig.numRounds) });
      }
    });
  } finally {
    if (nodeLlama) await nodeLlama.close();
  }
}

async function failureOf({ measure }: Contender): Promise<string | undefined> {
  try {
    await measure();
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** Both servers at once, one idle while the other answers: 32 streams from the same client. */
export async function measureServed(
  rig: PeerRig,
  shape: ShapeName,
  weights: SameWeights,
  precision: BenchPrecision,
): Promise<PeerRow> {
  return withServers(rig, weights, precision, async (ours, theirs) => {
    const rate = async ({ baseUrl }: ServerProcess, outputTokens: number) => {
      const load = { numStreams: MAX_BATCH, promptTokens: SERVED_PROMPT, outputTokens, seed: 1, timeoutMs: TIMEOUT_MS };
      return togetherRate(await runTogether({ baseUrl }, load));
    };
    for (const server of [ours, theirs]) await rate(server, 8); // warm-up
    const contenders = [
      { name: OURS, measure: () => rate(ours, TOGETHER_TOKENS) },
      { name: LLAMA_CPP, measure: () => rate(theirs, TOGETHER_TOKENS) },
    ];
    return { shape, test: "served32", precision, samples: await takeTurns(contenders, rig.numRounds) };
  });
}

/** How far apart both servers' log-probabilities are in f32. @throws Error if it is so far that the models differ */
export async function checkSameModel(rig: PeerRig, weights: SameWeights): Promise<number> {
  return withServers(rig, weights, "f32", async (ours, theirs) => {
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
  rig: PeerRig,
  weights: SameWeights,
  precision: BenchPrecision,
  use: (ours: ServerProcess, theirs: ServerProcess) => Promise<T>,
): Promise<T> {
  const flags = ["--model", weights.modelDir, "--precision", precision, "--max-batch", `${MAX_BATCH}`];
  const ours = await ServerProcess.startOwn([...flags, ...serveFlags(rig)]);
  try {
    const llama = { tools: rig.tools, ggufPath: weights.gguf[precision], threads: rig.threads };
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

export function peersDir(cacheDir: string): string {
  return join(cacheDir, "bench", "peers");
}
