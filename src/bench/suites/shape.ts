/**
 * Random weights of one shape, without the engine: each precision beside the memory, both
 * lowerings, and dense links.
 */
import type { Precision } from "../../model/artifact.ts";
import { stateBytes } from "../../model/state.ts";
import type { ModelRunner } from "../../runtime/runner.ts";
import { BENCH_PRECISIONS, MAX_BATCH, randomArtifact, type SuiteContext, withRunner } from "../config.ts";
import { atLeast, atMost, type Figure, median } from "../figures.ts";
import { unreadBytes } from "../random-model.ts";
import { inTurns, ratios } from "../rounds.ts";
import { measureDecode, measurePrefill, measureShare } from "../runner.ts";

const PROMPT = 512;
/** Of the read bandwidth, in percent; for the shape mamba-130m. */
const MIN_SHARE: Partial<Readonly<Record<Precision, number>>> = { f32: 95, int8: 88, int4: 60 };

export async function benchShape(context: SuiteContext): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const precision of context.precisions) {
    const { dir, manifest } = await randomArtifact(context, context.shape, precision);
    await withRunner(context, dir, async (runner) => {
      const numUnread = unreadBytes(context.shape, precision);
      const one = await measureShare(context, runner, manifest, { numUnread });
      const many = await measureDecode(runner, { numSequences: MAX_BATCH, numSteps: 20 });
      const read = () => measurePrefill(runner, PROMPT, context.prefillChunk);
      const { prefill } = await inTurns({ prefill: read }, { numRounds: 5 });
      const least = MIN_SHARE[precision];
      const target = context.shape === "mamba-130m" && least !== undefined && atLeast(least);
      figures.push(
        { name: `${precision} decode, 1 sequence`, value: one.stepMs, unit: "ms/token" },
        { name: `${precision} the bandwidth allows`, value: one.floorMs, unit: "ms/token" },
        { name: `${precision} of the read bandwidth`, value: one.share, unit: "%", ...target },
        { name: `${precision} decode, ${MAX_BATCH} sequences`, value: (MAX_BATCH / many) * 1000, unit: "tokens/s" },
        { name: `${precision} prefill, ${PROMPT} tokens`, value: (PROMPT / median(prefill)) * 1000, unit: "tokens/s" },
        { name: `${precision} state of a sequence`, value: stateBytes(manifest.state), unit: "B" },
      );
    });
  }
  return figures;
}

/** The same weights through our own operators and through ONNX Runtime's alone. */
export async function benchLowerings(context: SuiteContext): Promise<Figure[]> {
  if (context.kernels === undefined) return [];
  const plainContext = { ...context, kernels: undefined };
  const figures: Figure[] = [];
  for (const precision of BENCH_PRECISIONS) {
    const kernels = await randomArtifact(context, context.shape, precision);
    const plain = await randomArtifact(plainContext, context.shape, precision);
    await withRunner(context, kernels.dir, (a) =>
      withRunner(plainContext, plain.dir, async (b) => {
        const add = ({ what, aMs, ratio }: Comparison) =>
          figures.push(
            { name: `${precision} ${what}, kernels`, value: aMs, unit: "ms" },
            { name: `${precision} ${what}, plain / kernels`, value: ratio, unit: "x" },
          );
        add(await compareSteps(a, b, 1, 10));
        add(await compareSteps(a, b, MAX_BATCH, 3));
        add(await comparePrompts(a, b, context.prefillChunk));
      }),
    );
  }
  return figures;
}

/** What m = 2 dense links cost against m = 0. */
export async function benchLinks(context: SuiteContext): Promise<Figure[]> {
  const plain = await randomArtifact(context, "mamba-130m", "int8");
  const dense = await randomArtifact(context, "densemamba-130m", "int8");
  return withRunner(context, plain.dir, (a) =>
    withRunner(context, dense.dir, async (b) => {
      const step = await compareSteps(a, b, 1, 20);
      const read = await comparePrompts(a, b, context.prefillChunk);
      return [
        { name: "decode step, m = 0", value: step.aMs, unit: "ms" },
        { name: "decode step, m = 2", value: step.bMs, unit: "ms" },
        { name: "cost of the links, decode", value: (step.ratio - 1) * 100, unit: "%", ...atMost(8) },
        { name: `${PROMPT}-token prompt, m = 0`, value: read.aMs, unit: "ms" },
        { name: `${PROMPT}-token prompt, m = 2`, value: read.bMs, unit: "ms" },
        { name: "cost of the links, prefill", value: (read.ratio - 1) * 100, unit: "%", ...atMost(15) },
      ];
    }),
  );
}

interface Comparison {
  readonly what: string;
  readonly aMs: number;
  readonly bMs: number;
  /** Of `b` to `a`. */
  readonly ratio: number;
}

function compareSteps(a: ModelRunner, b: ModelRunner, numSequences: number, numRounds: number) {
  const measure = (runner: ModelRunner) => measureDecode(runner, { numSequences, numSteps: 10 });
  return compare(`step of ${numSequences}`, a, b, measure, numRounds);
}

function comparePrompts(a: ModelRunner, b: ModelRunner, chunk: number) {
  return compare(`prompt of ${PROMPT}`, a, b, (runner) => measurePrefill(runner, PROMPT, chunk), 5);
}

async function compare(
  what: string,
  runnerA: ModelRunner,
  runnerB: ModelRunner,
  measure: (runner: ModelRunner) => Promise<number>,
  numRounds: number,
): Promise<Comparison> {
  const { a, b } = await inTurns({ a: () => measure(runnerA), b: () => measure(runnerB) }, { numRounds });
  return { what, aMs: median(a), bMs: median(b), ratio: median(ratios(b, a)) };
}
