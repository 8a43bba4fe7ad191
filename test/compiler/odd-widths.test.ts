/** Widths that no block divides: every matrix has the bits that were asked for all the same. */
import { rm } from "node:fs/promises";
import { afterEach, describe, expect, it } from "vitest";
import { lower } from "../../src/compiler/lower.ts";
import type { LoweringKind, Precision } from "../../src/model/artifact.ts";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { relativeError } from "../helpers/arrays.ts";
import { randomCheckpoint, TINY_RETNET, TINY_SHAPE } from "../helpers/checkpoints.ts";
import { hasKernels, OwnGraph } from "./own-graph.ts";

const SHAPES = [
  { ...TINY_SHAPE, hiddenSize: 37, gateWidth: 5 },
  { ...TINY_SHAPE, hiddenSize: 100, tieEmbeddings: false },
  { ...TINY_RETNET, hiddenSize: 37, keyGateWidth: 9 },
];
const TOKENS = [5, 17, 42, 3, 70, 0, 8, 61];

let modelDir: string;
afterEach(() => rm(modelDir, { recursive: true }));

describe.each(SHAPES)("of $hiddenSize channels", (shape) => {
  it.each<[Precision, LoweringKind]>([
    ["int8", "kernels"],
    ["int4", "kernels"],
    ["int8", "plain"],
    ["int4", "plain"],
  ])("no large matrix stays f32 in %s, %s", async (precision, kind) => {
    modelDir = await randomCheckpoint(shape);
    const checkpoint = openCheckpoint(modelDir);
    for (const steps of ["one", "many"] as const) {
      const left = lower(checkpoint, { precision, lowering: kind }, steps)
        .initializers.filter(({ tensor }) => tensor.dtype === "f32" && tensor.shape.length === 2)
        .map(({ value }) => value.name)
        .filter((name) => /in_proj|out_proj|q_proj|k_proj|to_hidden|to_out|embed|lm_head/.test(name))
        .filter((name) => !/scales/.test(name));
      expect(left).toEqual([]);
    }
    checkpoint.close();
  });

  it.runIf(hasKernels)("our operators in int8 are near f32", async () => {
    modelDir = await randomCheckpoint(shape);
    const [exact, near] = [await OwnGraph.open(modelDir, "f32"), await OwnGraph.open(modelDir, "int8")];
    const [[expected], [actual]] = [await exact.read([TOKENS]), await near.read([TOKENS])];
    for (const [t, row] of expected!.entries()) expect(relativeError(actual![t]!, row)).toBeLessThan(0.1);
    expect(actual![0]).not.toEqual(expected![0]);
    await Promise.all([exact.close(), near.close()]);
  });
});
