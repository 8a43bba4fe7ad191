/** Who is measured at what: for each test the contenders, ours first, each of which gives tokens per second when it is its turn. */
import { join } from "node:path";
import type { Precision } from "../../model/artifact.ts";
import { runTogether, togetherRate } from "../load/open-loop.ts";
import { streamCompletion } from "../load/stream-client.ts";
import { MAX_BATCH, type Rig, randomArtifact, type ShapeName, serveFlags, withRunner } from "../rig.ts";
import { measureDecodeRate, measurePrefillRate } from "../runner-rates.ts";
import { ServerProcess } from "../server-process.ts";
import type { LlamaTools } from "./install.ts";
import { type LlamaModel, llamaBatchedBench, llamaBench, startLlamaServer } from "./llama-cpp.ts";
import { NodeLlama } from "./node-llama.ts";
import { BARE_TESTS, LLAMA_CPP, NODE_LLAMA, OURS, type PeerRow } from "./result.ts";
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

/** The tests without a server, in one precision. */
export async function measureBare(
  rig: PeerRig,
  shape: ShapeName,
  weights: SameWeights,
  precision: Precision,
  onRow: (row: PeerRow) => void,
): Promise<void> {
  const artifact = await randomArtifact(rig, shape, precision);
  const llama: LlamaModel = { tools: rig.tools, ggufPath: weights.gguf[precision], threads: rig.threads };
  const nodeLlama = rig.nodeLlama && (await NodeLlama.open(rig.nodeLlama, llama.ggufPath, rig.threads));
  try {
    await withRunner(rig, artifact.dir, async (runner) => {
      await measureDecodeRate(runner, 1, 32); // warm-up
      const tests: Record<(typeof BARE_TESTS)[number], readonly Contender["measure"][]> = {
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
      for (const test of BARE_TESTS) {
        const contenders = tests[test].map((measure, i) => ({ name: [OURS, LLAMA_CPP, NODE_LLAMA][i]!, measure }));
        onRow({ shape, test, precision, samples: await takeTurns(contenders, rig.numRounds) });
      }
    });
  } finally {
    if (nodeLlama) await nodeLlama.close();
  }
}

/** Both servers at once, one idle while the other answers: 32 streams from the same client. */
export async function measureServed(
  rig: PeerRig,
  shape: ShapeName,
  weights: SameWeights,
  precision: Precision,
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

/** Of `numTokens` greedy tokens in f32, how many both servers agree on before they part: that they run the same model. */
export async function countAgreement(rig: PeerRig, weights: SameWeights, numTokens: number): Promise<number> {
  return withServers(rig, weights, "f32", async (...servers) => {
    const request = { promptIds: [5, 17, 101, 40], maxTokens: numTokens, timeoutMs: TIMEOUT_MS };
    const texts = await Promise.all(
      servers.map(async ({ baseUrl }) => {
        const { text, error } = await streamCompletion({ baseUrl }, request);
        if (error !== undefined) throw new Error(`${baseUrl}: ${error}`);
        return text.trim().split(/\s+/); // a token is a number
      }),
    );
    const [ours, theirs] = texts as [string[], string[]];
    const parting = ours.findIndex((token, i) => token !== theirs[i]);
    return parting === -1 ? ours.length : parting;
  });
}

async function withServers<T>(
  rig: PeerRig,
  weights: SameWeights,
  precision: Precision,
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
