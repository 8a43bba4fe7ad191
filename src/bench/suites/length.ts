/**
 * Decoding far into a sequence, with random weights of a RetNet: a step after 64k tokens must cost
 * what one after 1k does.
 */
import { randomArtifact, type SuiteContext, withRunner } from "../config.ts";
import { atLeast, atMost, type Figure, median } from "../figures.ts";
import { inTurns } from "../rounds.ts";
import { measureDecode, measureShare, readPrompt } from "../runner.ts";

const SHAPE = "denseretnet-350m";
const PRECISION = "int8";
/** Tokens; the state after each stays in a slot of its own. */
const LENGTHS = [1024, 4096, 16_384, 65_536] as const;

export async function benchLength(context: SuiteContext): Promise<Figure[]> {
  const { dir, manifest } = await randomArtifact(context, SHAPE, PRECISION);
  return withRunner(context, dir, async (runner) => {
    let numRead = 0;
    for (const [i, length] of LENGTHS.entries()) {
      await readPrompt(runner, length - numRead, context.prefillChunk);
      numRead = length;
      await runner.copySlot(0, i + 1);
      context.print(`read ${length} of ${LENGTHS.at(-1)} tokens`);
    }
    const measurements = Object.fromEntries(
      LENGTHS.map((length, i) => [
        length,
        () => measureDecode(runner, { numSequences: 1, numSteps: 5, firstSlot: i + 1 }),
      ]),
    );
    const samples = await inTurns(measurements, { numRounds: 10 });
    const stepMs = LENGTHS.map((length) => median(samples[length]!));
    const { floorMs, share } = await measureShare(context, runner, manifest, { firstSlot: LENGTHS.length });
    return [
      ...LENGTHS.map((length, i) => ({
        name: `${SHAPE}, ${PRECISION}, a step after ${length} tokens`,
        value: stepMs[i]!,
        unit: "ms",
      })),
      { name: "the bandwidth allows", value: floorMs, unit: "ms" },
      { name: "of the read bandwidth, at the end", value: share, unit: "%", ...atLeast(75) },
      {
        name: `after ${LENGTHS.at(-1)} tokens / ${LENGTHS[0]}`,
        value: stepMs.at(-1)! / stepMs[0]!,
        unit: "x",
        ...atMost(1.05),
      },
    ];
  });
}
