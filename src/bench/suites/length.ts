/** Decoding far into a sequence, in random weights of a RetNet: a step behind 64k tokens must cost what one behind 1k does. */
import type { BenchContext } from "../context.ts";
import { atLeast, atMost, type Figure, median } from "../report.ts";
import { randomArtifact, withRunner } from "../rig.ts";
import { readPrompt, timeDecodeSteps } from "../runner-rates.ts";
import { measureShare } from "./shape.ts";

const SHAPE = "denseretnet-350m";
const PRECISION = "int8";
/** Tokens; each length is kept in a slot of its own. */
const LENGTHS = [1024, 4096, 16_384, 65_536] as const;
const NUM_ROUNDS = 10;
const STEPS_PER_ROUND = 5;
/** Of the read bandwidth, the weights' and the state's bytes counted. */
const LEAST_SHARE = 75;
/** What is left to noise. */
const MOST_GROWTH = 1.05;

export async function benchLength(context: BenchContext): Promise<Figure[]> {
  const { dir, manifest } = await randomArtifact(context, SHAPE, PRECISION);
  return withRunner(context, dir, async (runner) => {
    let numRead = 0;
    for (const [i, length] of LENGTHS.entries()) {
      await readPrompt(runner, length - numRead, context.prefillChunk);
      numRead = length;
      await runner.copySlot(0, i + 1);
      context.print(`read ${length} of ${LENGTHS.at(-1)} tokens`);
    }
    const stepMs = LENGTHS.map((): number[] => []);
    for (let round = 0; round < NUM_ROUNDS; round++) {
      for (const [i, times] of stepMs.entries()) {
        times.push(...(await timeDecodeSteps(runner, STEPS_PER_ROUND, { firstSlot: i + 1 })));
      }
    }
    const medians = stepMs.map(median);
    const { floorMs, share } = await measureShare(context, runner, manifest, { firstSlot: LENGTHS.length });
    const label = (length: number) => `${SHAPE}, ${PRECISION}, a step behind ${length} tokens`;
    return [
      ...LENGTHS.map((length, i): Figure => ({ name: label(length), value: medians[i]!, unit: "ms" })),
      { name: "the bandwidth allows", value: floorMs, unit: "ms" },
      {
        name: "of the read bandwidth, at the end",
        value: share,
        unit: "%",
        ...atLeast(LEAST_SHARE),
      },
      {
        name: `behind ${LENGTHS.at(-1)} tokens / ${LENGTHS[0]}`,
        value: medians.at(-1)! / medians[0]!,
        unit: "x",
        ...atMost(MOST_GROWTH),
      },
    ];
  });
}
