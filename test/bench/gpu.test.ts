/** What a GPU could make of a model, as docs/gpu.md has it, from bytes and operations. */
import { readFile, rm } from "node:fs/promises";
import { expect, it } from "vitest";
import {
  DEVICES,
  leastTime,
  mostTokensPerSecond,
  ROOFLINE_COMMAND,
  rooflineSection,
  workOf,
} from "../../bench/gpu/roofline.ts";
import { GPU_SHAPES } from "../../bench/gpu/shapes.ts";
import { replaceSection } from "../../bench/page.ts";
import { compileModel } from "../../src/compiler/compile.ts";
import { stateBytes } from "../../src/model/state.ts";
import { randomCheckpoint, TINY_RETNET, TINY_SHAPE, temporaryFolder } from "../helpers/checkpoints.ts";

const MAMBA = GPU_SHAPES["mamba-130m"];

it.each([
  { name: "Mamba", shape: { ...TINY_SHAPE, hiddenSize: 256 } },
  { name: "RetNet", shape: { ...TINY_RETNET, hiddenSize: 256, tieEmbeddings: true } },
])("the bytes that a step of a $name reads are those of its artifact", async ({ shape }) => {
  const [modelDir, outDir] = [await randomCheckpoint(shape), temporaryFolder()];
  const { files, state } = await compileModel({ modelDir, precision: "f16", lowering: "cuda", outDir });
  const { matrices, recurrence } = workOf(shape, { numSequences: 3, numSteps: 1 });
  const weightBytes = files.find(({ name }) => name === "weights.bin")!.bytes;
  expect(Math.abs(matrices.bytes / weightBytes - 1)).toBeLessThan(0.05); // small ones are in the graphs
  expect(recurrence.bytes).toBe(2 * 3 * stateBytes(state));
  for (const dir of [modelDir, outDir]) await rm(dir, { recursive: true });
});

it("a step of one sequence takes as long as reading the weights and the state", () => {
  const work = workOf(MAMBA, { numSequences: 1, numSteps: 1 });
  const bytes = work.matrices.bytes + work.recurrence.bytes;
  expect(bytes).toBeGreaterThan(129e6 * 2);
  expect(leastTime(work, DEVICES.H200)).toBeCloseTo(bytes / 4.8e12, 12);
});

it("a pass has two operations for each weight of a product and token, and one row of logits a sequence", () => {
  const [hiddenSize, E, N, R] = [768, 1536, 16, 48];
  const perLayer = 2 * E * hiddenSize + (R + 2 * N) * E + hiddenSize * E;
  const { matrices } = workOf(MAMBA, { numSequences: 2, numSteps: 100 });
  expect(matrices.tensorFlops).toBe(2 * (200 * 24 * perLayer + 2 * MAMBA.vocabSize * hiddenSize));
  expect(matrices.f32Flops).toBe(2 * 200 * 24 * E * R);
});

it("more sequences never make fewer tokens a second, and more memory never makes a device slower", () => {
  for (const shape of Object.values(GPU_SHAPES)) {
    for (const numSteps of [1, 512]) {
      const rates = [1, 8, 32].map((numSequences) =>
        mostTokensPerSecond(shape, { numSequences, numSteps }, DEVICES.H100),
      );
      expect(rates).toEqual(rates.toSorted((a, b) => a - b));
      const pass = { numSequences: 32, numSteps };
      expect(mostTokensPerSecond(shape, pass, DEVICES.H200)).toBeGreaterThanOrEqual(
        mostTokensPerSecond(shape, pass, DEVICES.H100),
      );
    }
  }
});

it("docs/gpu.md has the figures that follow from the shapes", async () => {
  const page = await readFile("docs/gpu.md", "utf8");
  expect(page).toBe(replaceSection(page, "roofline", rooflineSection(), ROOFLINE_COMMAND));
});
