/**
 * What the compiler knows of our operators' bounds is what they have, and beyond one plain ONNX is
 * in that operator's place.
 */
import { readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { loweringFor } from "../../src/app/kernels.ts";
import { lower, surveyOperators } from "../../src/compiler/lower.ts";
import { MAX_TAPS } from "../../src/compiler/operators/causal-conv.ts";
import { MAX_CUDA_KEY_WIDTH, MAX_KEY_WIDTH } from "../../src/compiler/operators/retention.ts";
import { MAX_CUDA_STATE_SIZE, MAX_LINKS, MAX_SCAN_ROWS } from "../../src/compiler/operators/selective-scan.ts";
import type { RandomShape } from "../../src/compiler/random-checkpoint.ts";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { numericMode } from "../../src/model/manifest.ts";
import { ReferenceModel } from "../../src/model/reference.ts";
import type { KernelLibrary } from "../../src/runtime/open.ts";
import { runProgram } from "../cli/program-run.ts";
import { relativeError } from "../helpers/arrays.ts";
import { randomCheckpoint, TINY_RETNET, TINY_SHAPE, temporaryFolder } from "../helpers/checkpoints.ts";
import { hasKernels, OwnGraph } from "./own-graph.ts";

it("the compiler knows the limits of the sources, all of them", () => {
  const limits = readFileSync("kernels/limits.h", "utf8").matchAll(/\bDM_(MAX_\w+) = (\d+)/g);
  expect(Object.fromEntries([...limits].map(([, name, value]) => [name, Number(value)]))).toEqual({
    ...{ MAX_TAPS, MAX_LINKS, MAX_SCAN_ROWS, MAX_CUDA_STATE_SIZE, MAX_KEY_WIDTH, MAX_CUDA_KEY_WIDTH },
  });
});

it.each(["causal_conv", "selective_scan", "recurrence"])("%s has no other limits, in C or in CUDA", (name) => {
  for (const file of [`kernels/${name}.c`, `kernels/cuda/${name}.cu`]) {
    const source = readFileSync(file, "utf8");
    expect(source).not.toMatch(/\bMAX_\w+ = /);
    for (const [, values] of source.matchAll(/at most %\w+([^;]*);/g)) expect(values).toMatch(/\bDM_MAX_/);
  }
});

interface Beyond {
  readonly shape: RandomShape;
  readonly operator: string;
  readonly reason: RegExp;
}

const wideKey = { ...TINY_RETNET, numHeads: 1, keyDim: MAX_KEY_WIDTH + 2 };
const largeState = { ...TINY_SHAPE, stateSize: MAX_CUDA_STATE_SIZE + 1 };
const onBoth: readonly Beyond[] = [
  {
    shape: { ...TINY_SHAPE, convKernel: 17 },
    operator: "CausalConv",
    reason: /conv_kernel up to 16, this model has 17/,
  },
  {
    shape: { ...TINY_SHAPE, numLayers: 10, denseLayers: 9 },
    operator: "SelectiveScan",
    reason: /dense_layers up to 8, this model has 9/,
  },
];
const onCpu: readonly Beyond[] = [
  {
    shape: { ...TINY_SHAPE, stateSize: MAX_SCAN_ROWS / 2 },
    operator: "SelectiveScan",
    reason: /2 state_size \+ time_step_rank up to 4096, this model has 4100/,
  },
  { shape: wideKey, operator: "Retention", reason: /a head's key up to 4096, this model has 4098/ },
];
const onCuda: readonly Beyond[] = [
  { shape: wideKey, operator: "Retention", reason: /a head's key up to 512, this model has 4098/ },
  { shape: largeState, operator: "SelectiveScan", reason: /state_size up to 256, this model has 257/ },
];

/** Where it has another name than its operator. */
const KERNELS: Readonly<Record<string, string>> = { Retention: "Recurrence" };

describe.each([
  { device: "cpu" as const, own: "kernels" as const, beyond: [...onBoth, ...onCpu], within: [largeState] },
  { device: "cuda" as const, own: "cuda" as const, beyond: [...onBoth, ...onCuda], within: [] },
])("on $device", ({ device, own, beyond, within }) => {
  const kernels = { device } as KernelLibrary;

  it.each(beyond)("a model's $operator is plain ONNX, with one line: $reason", async ({ shape, operator, reason }) => {
    const modelDir = await randomCheckpoint(shape);
    const notes: string[] = [];
    expect(loweringFor(kernels, modelDir, (note) => notes.push(note))).toBe(own);
    expect(notes).toEqual([expect.stringMatching(reason)]);
    expect(notes[0]).toContain(`in place of the kernel of ${operator}`);
    const checkpoint = openCheckpoint(modelDir);
    expect(surveyOperators(checkpoint, own).isRagged).toBe(false);
    for (const steps of ["one", "many"] as const) {
      const graph = lower(checkpoint, { precision: "f32", lowering: own }, steps);
      expect(graph.inputs.map(({ value }) => value.name)).not.toContain("lengths");
      expect(graph.nodes.map(({ opType }) => opType)).not.toContain(KERNELS[operator] ?? operator);
      // On CUDA a RetNet has no other kernel.
      if (operator !== "Retention") expect(graph.nodes.map(({ domain }) => domain)).toContain("densemamba");
    }
    checkpoint.close();
    await rm(modelDir, { recursive: true });
  });

  it("a model that the other device's operators cannot take is lowered to our own", async () => {
    for (const shape of within) {
      const modelDir = await randomCheckpoint(shape);
      const notes: string[] = [];
      expect(loweringFor(kernels, modelDir, (note) => notes.push(note))).toBe(own);
      expect(notes).toEqual([]);
      await rm(modelDir, { recursive: true });
    }
  });
});

const { convKernel, links } = {
  convKernel: { ...TINY_SHAPE, convKernel: 17 },
  links: { ...TINY_SHAPE, numLayers: 10, denseLayers: 9 },
};

describe.runIf(hasKernels).each([convKernel, links, wideKey])("a model beyond a limit: %o", (shape) => {
  it("gives what the oracle gives, whole and step by step, and promises no more than plain ONNX", async () => {
    const modelDir = await randomCheckpoint(shape);
    const checkpoint = openCheckpoint(modelDir);
    const oracle = new ReferenceModel(checkpoint);
    const graph = await OwnGraph.open(modelDir, "f32");
    expect(graph.runner.manifest.ragged).toBeUndefined();
    expect(numericMode({ ...graph.runner.manifest, precision: "int8" })).toBe("fast");
    const tokens = [5, 17, 42, 3, 70, 0, 8];
    const expected = oracle.forward(tokens, oracle.newState());
    for (const lengths of [[7], [3, 1, 1, 2]]) {
      const [rows] = await graph.read([tokens], lengths);
      for (const [t, row] of rows!.entries()) expect(relativeError(row, expected[t]!)).toBeLessThan(1e-4);
    }
    await graph.close();
    checkpoint.close();
    await rm(modelDir, { recursive: true });
  });
});

it.each([
  [{ ...TINY_SHAPE, convKernel: 17 }, /conv_kernel up to 16, this model has 17/],
  [{ ...TINY_SHAPE, numLayers: 10, denseLayers: 9 }, /dense_layers up to 8, this model has 9/],
])("a model beyond them is served in plain ONNX: %o", async (shape, reason) => {
  const [modelDir, cacheDir] = [await randomCheckpoint(shape), temporaryFolder()];
  const common = ["--device", "cpu", "--precision", "int8"];
  const score = ["score", "--model", modelDir, "--token-ids", "1,2,3,4", "--cache-dir", cacheDir, ...common];
  const scored = runProgram(score);
  expect(await scored.exitCode, scored.stderr.text).toBe(0);
  const compile = runProgram(["compile", "--model", modelDir, "--out", `${cacheDir}/out`, ...common]);
  expect(await compile.exitCode, compile.stderr.text).toBe(0);
  if (process.env.DENSEMAMBA_KERNEL_LIBRARY !== undefined) expect(compile.stderr.text).toMatch(reason);
  for (const dir of [modelDir, cacheDir]) await rm(dir, { recursive: true });
});
