/** What the compiler knows of our operators' bounds is what they have, and a model beyond them runs on plain ONNX. */
import { readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { expect, it } from "vitest";
import { KERNEL_LIMITS } from "../../src/compiler/kernel-limits.ts";
import { runProgram } from "../cli/program-run.ts";
import { randomCheckpoint, TINY_SHAPE, temporaryFolder } from "../helpers/checkpoints.ts";

it.each([
  ["causal_conv", "MAX_TAPS", KERNEL_LIMITS.taps],
  ["selective_scan", "MAX_LINKS", KERNEL_LIMITS.links],
  ["selective_scan", "MAX_ROWS", KERNEL_LIMITS.scanRows],
  ["retention", "MAX_KEY_WIDTH", KERNEL_LIMITS.keyWidth],
])("%s.c has %s as the compiler knows it", (file, name, value) => {
  expect(readFileSync(`kernels/${file}.c`, "utf8")).toMatch(new RegExp(`\\b${name} = ${value}\\b`));
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
