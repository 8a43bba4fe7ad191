/** What the compiler knows of our operators' bounds is what they have, and a model beyond them runs on plain ONNX. */
import { readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { loweringFor } from "../../src/app/kernels.ts";
import { compileModel } from "../../src/compiler/compile.ts";
import { KERNEL_LIMITS } from "../../src/compiler/kernel-limits.ts";
import type { RandomShape } from "../../src/compiler/random-checkpoint.ts";
import type { KernelLibrary } from "../../src/runtime/open.ts";
import { runProgram } from "../cli/program-run.ts";
import { randomCheckpoint, TINY_RETNET, TINY_SHAPE, temporaryFolder } from "../helpers/checkpoints.ts";

it("the compiler knows the limits of the sources, all of them", () => {
  const limits = readFileSync("kernels/limits.h", "utf8").matchAll(/\bDM_MAX_(\w+) = (\d+)/g);
  const camelCase = (name: string) => name.toLowerCase().replace(/_(\w)/g, (_, letter) => letter.toUpperCase());
  expect(Object.fromEntries([...limits].map(([, name, value]) => [camelCase(name!), Number(value)]))).toEqual(
    KERNEL_LIMITS,
  );
});

it.each(["causal_conv", "selective_scan", "retention"])("%s has no other limits, in C or in CUDA", (name) => {
  for (const file of [`kernels/${name}.c`, `kernels/cuda/${name}.cu`]) {
    const source = readFileSync(file, "utf8");
    expect(source).not.toMatch(/\bMAX_\w+ = /);
    for (const [, values] of source.matchAll(/at most %\w+([^;]*);/g)) expect(values).toMatch(/\bDM_MAX_/);
  }
});

interface Beyond {
  readonly shape: RandomShape;
  readonly reason: RegExp;
}

const { scanRows, cudaStateSize, keyWidth } = KERNEL_LIMITS;
const wideKey = { ...TINY_RETNET, numHeads: 1, keyDim: keyWidth + 2 };
const largeState = { ...TINY_SHAPE, stateSize: cudaStateSize + 1 };
const onBoth: readonly Beyond[] = [
  { shape: { ...TINY_SHAPE, convKernel: 17 }, reason: /conv_kernel up to 16, this model has 17/ },
  { shape: { ...TINY_SHAPE, numLayers: 10, denseLayers: 9 }, reason: /dense_layers up to 8, this model has 9/ },
];
const onCpu: readonly Beyond[] = [
  {
    shape: { ...TINY_SHAPE, stateSize: scanRows / 2 },
    reason: /2 state_size \+ time_step_rank up to 4096, this model has 4100/,
  },
  { shape: wideKey, reason: /a head's key up to 4096, this model has 4098/ },
];
const onCuda: readonly Beyond[] = [{ shape: largeState, reason: /state_size up to 256, this model has 257/ }];

describe.each([
  { device: "cpu" as const, own: "kernels" as const, beyond: [...onBoth, ...onCpu], within: [largeState] },
  { device: "cuda" as const, own: "cuda" as const, beyond: [...onBoth, ...onCuda], within: [wideKey] },
])("on $device", ({ device, own, beyond, within }) => {
  const kernels = { device } as KernelLibrary;

  it.each(beyond)("a model is lowered to plain ONNX with one line, or refused: $reason", async ({ shape, reason }) => {
    const [modelDir, outDir] = [await randomCheckpoint(shape), temporaryFolder()];
    const notes: string[] = [];
    expect(loweringFor(kernels, modelDir, (note) => notes.push(note))).toBe("plain");
    expect(notes).toEqual([expect.stringMatching(reason)]);
    await expect(compileModel({ modelDir, precision: "f32", lowering: own, outDir })).rejects.toMatchObject({
      code: "unsupported_value",
      message: expect.stringMatching(reason),
    });
    for (const dir of [modelDir, outDir]) await rm(dir, { recursive: true });
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
