/** Random weights of one shape, without the engine: decode and prefill in each precision, beside what the memory allows. */
import type { Manifest } from "../../model/artifact.ts";
import { stateBytes } from "../../model/state.ts";
import type { ModelRunner, RunInput } from "../../runtime/runner.ts";
import type { BenchContext } from "../context.ts";
import { atLeast, atMost, type Figure, median } from "../report.ts";
import { BENCH_PRECISIONS, type BenchPrecision, MAX_BATCH, randomArtifact, withRunner } from "../rig.ts";
import {
  compareDecodeMs,
  comparePrefillMs,
  measureDecodeMs,
  measurePrefillRate,
  timeDecodeSteps,
} from "../runner-rates.ts";

/** Promised shares of the read bandwidth, one sequence. */
const LEAST_SHARE: Readonly<Record<BenchPrecision, number>> = { f32: 95, int8: 88, int4: 60 };

export async function benchShape(context: BenchContext): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const precision of BENCH_PRECISIONS) {
    const artifact = await randomArtifact(context, context.shape, precision);
    await withRunner(context, artifact.dir, async (runner) => {
      const one = await measureShare(context, runner, artifact.manifest);
      const many = await measureDecodeMs(runner, MAX_BATCH, 20);
      const prefill = await measurePrefillRate(runner, PROMPT, context.prefillChunk, 5);
      const isPromised = context.shape === "mamba-130m";
      figures.push(
        { name: `${precision} decode, 1 sequence`, value: one.stepMs, unit: "ms/token" },
        { name: `${precision} the bandwidth allows`, value: one.floorMs, unit: "ms/token" },
        {
          name: `${precision} of the read bandwidth`,
          value: one.share,
          unit: "%",
          ...(isPromised && atLeast(LEAST_SHARE[precision])),
        },
        {
          name: `${precision} decode, ${MAX_BATCH} sequences`,
          value: (MAX_BATCH / many) * 1000,
          unit: "tokens/s",
        },
        { name: `${precision} prefill, 512 tokens`, value: prefill, unit: "tokens/s" },
        { name: `${precision} state of a sequence`, value: stateBytes(artifact.manifest.state), unit: "B" },
      );
    });
  }
  return figures;
}

const PROMPT = 512;

/** Read as the server reads one. */
function promptOf({ prefillChunk }: Pick<BenchContext, "prefillChunk">) {
  return { numTokens: PROMPT, chunk: prefillChunk };
}

/**
 * A decode step of one sequence reads every weight and the state once. The largest file holds the weights; these shapes
 * that tie the embedding to the head read all of it.
 */
export function bytesReadByStep({ files, state }: Pick<Manifest, "files" | "state">): number {
  return Math.max(...files.map((file) => file.bytes)) + stateBytes(state);
}

const NUM_ROUNDS = 7;
const STEPS_PER_ROUND = 20;

/**
 * Decode steps of one sequence beside what the memory allows, in turns: another user of the memory takes from both. `share` is the
 * median of the rounds', in %.
 */
export async function measureShare(
  { memory }: Pick<BenchContext, "memory">,
  runner: ModelRunner,
  manifest: Manifest,
  { firstSlot }: Pick<RunInput, "firstSlot"> = { firstSlot: 0 },
): Promise<{ readonly stepMs: number; readonly floorMs: number; readonly share: number }> {
  const rounds: { stepMs: number; floorMs: number }[] = [];
  const numBytes = bytesReadByStep(manifest);
  for (let round = 0; round < NUM_ROUNDS; round++) {
    const floorMs = (numBytes / (await memory.measure(numBytes))) * 1000;
    rounds.push({ stepMs: median(await timeDecodeSteps(runner, STEPS_PER_ROUND, { firstSlot })), floorMs });
  }
  return {
    stepMs: median(rounds.map(({ stepMs }) => stepMs)),
    floorMs: median(rounds.map(({ floorMs }) => floorMs)),
    share: median(rounds.map(({ stepMs, floorMs }) => floorMs / stepMs)) * 100,
  };
}

/**
 * The same weights through our own operators and through ONNX Runtime's alone, in turns. Without a library of ours there
 * is nothing to compare.
 */
export async function benchLowerings(context: BenchContext): Promise<Figure[]> {
  if (context.kernels === undefined) return [];
  const plainRig = { ...context, kernels: undefined };
  const figures: Figure[] = [];
  for (const precision of BENCH_PRECISIONS) {
    const kernels = await randomArtifact(context, context.shape, precision);
    const plain = await randomArtifact(plainRig, context.shape, precision);
    await withRunner(context, kernels.dir, (a) =>
      withRunner(plainRig, plain.dir, async (b) => {
        const add = (name: string, { aMs, bMs }: { readonly aMs: number; readonly bMs: number }) =>
          figures.push(
            { name: `${precision} ${name}, kernels`, value: aMs, unit: "ms" },
            { name: `${precision} ${name}, plain / kernels`, value: bMs / aMs, unit: "x" },
          );
        add("step of 1", await compareDecodeMs(a, b, 1, 10));
        add(`step of ${MAX_BATCH}`, await compareDecodeMs(a, b, MAX_BATCH, 3));
        add("prompt of 512", await comparePrefillMs(a, b, promptOf(context), 5));
      }),
    );
  }
  return figures;
}

/** What m = 2 dense links cost against m = 0, in turns. */
export async function benchLinks(context: BenchContext): Promise<Figure[]> {
  const plain = await randomArtifact(context, "mamba-130m", "int8");
  const dense = await randomArtifact(context, "densemamba-130m", "int8");
  return withRunner(context, plain.dir, (plainRunner) =>
    withRunner(context, dense.dir, async (denseRunner) => {
      const step = await compareDecodeMs(plainRunner, denseRunner, 1, 20);
      const read = await comparePrefillMs(plainRunner, denseRunner, promptOf(context), 5);
      return [
        { name: "decode step, m = 0", value: step.aMs, unit: "ms" },
        { name: "decode step, m = 2", value: step.bMs, unit: "ms" },
        { name: "cost of the links, decode", value: (step.bMs / step.aMs - 1) * 100, unit: "%", ...atMost(8) },
        { name: "512-token prompt, m = 0", value: read.aMs, unit: "ms" },
        { name: "512-token prompt, m = 2", value: read.bMs, unit: "ms" },
        { name: "cost of the links, prefill", value: (read.bMs / read.aMs - 1) * 100, unit: "%", ...atMost(15) },
      ] satisfies Figure[];
    }),
  );
}
