/**
 * The operators in CUDA without a device: their source, compiled for a CPU with
 * kernels/test/cuda_emulation.h, passes the tests of the operators in C, under AddressSanitizer and
 * UBSan. What that shows and what it cannot: docs/gpu.md
 */
import { execFile, spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CudaRuntime } from "../../src/runtime/native/cuda-runtime.ts";
import { OrtApi } from "../../src/runtime/native/ort-api.ts";
import { loadSharedLibrary } from "../../src/runtime/native/shared-library.ts";
import { sanitizerFlags } from "../helpers/sanitizers.ts";

const CC = process.env.CC || "cc";
const CXX = process.env.CXX || "c++";
const C_FLAGS = [
  "-std=gnu11",
  "-O1",
  "-g",
  "-fno-var-tracking",
  "-DDM_ISA=emulated",
  "-DDM_ON_DEVICE",
  ...sanitizerFlags(CC),
];
const CUDA_FLAGS = [
  ...[
    "-std=gnu++20",
    "-O1",
    "-g",
    "-fno-var-tracking",
    "-DDM_ISA=emulated",
    "-DDM_CUDA_EMULATION",
    ...sanitizerFlags(CXX),
  ],
  ...["-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-Wno-missing-field-initializers", "-Wno-unknown-pragmas"],
];
/** It prints so at the first thread that is emulated, and has no option against it. */
const NOT_A_FAULT = /^.*WARNING: ASan doesn't fully support makecontext.*\n/gm;

const run = promisify(execFile);
const SLOW = { timeout: 240_000 };
const hasCompilers = [CC, CXX].every((compiler) => spawnSync(compiler, ["--version"]).status === 0);
const operators = readdirSync("kernels/cuda")
  .filter((name) => name.endsWith(".cu"))
  .map((name) => path.basename(name, ".cu"))
  .filter((name) => readdirSync("kernels/test").includes(`${name}.c`));

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "densemamba-kernels-cuda-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

it("ONNX Runtime makes the memory info of a device that is not there", () => {
  const api = new OrtApi({ checked: true });
  api.release(api.createCudaMemoryInfo());
  api.assertNothingLive();
});

const nvcc = process.env.CUDA_HOME ? path.join(process.env.CUDA_HOME, "bin", "nvcc") : "nvcc";

describe.runIf(spawnSync(nvcc, ["--version"]).status === 0)("nvcc", () => {
  it("comes with a CUDA runtime that has all that we call of it, and loads without a driver", () => {
    const folders = ["lib", "lib64"].map((name) => path.join(process.env.CUDA_HOME ?? "/usr/local/cuda", name));
    const file = folders.map((folder) => path.join(folder, "libcudart.so.13")).find(existsSync);
    const runtime = new CudaRuntime(loadSharedLibrary(file ?? "libcudart.so.13"));
    expect(() => runtime.check("do that", 2)).toThrow("CUDA cannot do that: out of memory (error 2)");
  });

  const devices = [75, 80, 90, 100, 120];
  it.each(operators)(`keeps a thread's numbers of %s in registers, on sm_${devices}`, SLOW, async (name) => {
    const flags = ["-std=c++20", "-O3", "-w", "-DDM_ISA=cuda", "-Xptxas", "-v", "--threads", "0"];
    const targets = devices.flatMap((sm) => ["-gencode", `arch=compute_${sm},code=sm_${sm}`]);
    const files = ["-c", `kernels/cuda/${name}.cu`, "-o", path.join(folder, `${name}.devices.o`)];
    const { stdout, stderr } = await run(nvcc, [...flags, ...targets, ...files]);
    const kernels = [...(stdout + stderr).matchAll(/for '(sm_\d+)'[\s\S]*?(\d+) bytes spill stores/g)];
    expect(new Set(kernels.map(([, sm]) => sm))).toEqual(new Set(devices.map((sm) => `sm_${sm}`)));
    for (const [, sm, bytes] of kernels) expect(Number(bytes), sm).toBeLessThanOrEqual(48);
  });
});

describe.runIf(hasCompilers)("the operators in CUDA", () => {
  it("are some of those in C", () => {
    expect(operators).toEqual([
      "causal_conv",
      "delta_rule_inputs",
      "delta_rule_output",
      "discretize",
      "norm",
      "recurrence",
      "selective_scan",
      "token_shift",
    ]);
  });

  it.each(operators)("%s passes the test of the same name in C", SLOW, async (name) => {
    const program = path.join(folder, name);
    await run(CXX, [...CUDA_FLAGS, "-x", "c++", "-c", `kernels/cuda/${name}.cu`, "-o", `${program}.o`]);
    const sources = ["kernels/op.c", `kernels/test/${name}.c`, `${program}.o`];
    await run(CC, [...C_FLAGS, ...sources, "-o", program, "-pthread", "-lm", "-lstdc++"]);
    const { stdout, stderr } = await run(program, []);
    expect((stdout + stderr).replace(NOT_A_FAULT, "")).toBe("");
  });
});

const KERNELS = {
  "a barrier that one thread does not come to": "if (threadIdx.x != 3) __syncthreads();",
  "a shuffle that one lane stays away from": "if (threadIdx.x != 3) out[threadIdx.x] = dm_add_across(1.0f, 1);",
  "a block beyond what a device takes": "(void)out;",
};

describe.runIf(hasCompilers)("the emulation", () => {
  it.each(Object.entries(KERNELS))("ends the program at %s", { timeout: 60_000 }, async (name, body) => {
    const size = name.startsWith("a block") ? 1025 : 64;
    const source = path.join(folder, `${size}-${body.length}.cc`);
    await writeFile(
      source,
      `#include "cuda/device.h"
__global__ void kernel(float *out) { ${body} }
int main() { static float out[64], *to = out; DM_LAUNCH(kernel, dim3(1), dim3(${size}), (cudaStream_t)0, to); }`,
    );
    const program = `${source}.out`;
    await run(CXX, [
      "-std=gnu++20",
      "-O1",
      "-DDM_ISA=emulated",
      "-DDM_CUDA_EMULATION",
      "-Ikernels",
      source,
      "-o",
      program,
    ]);
    await expect(run(program, [])).rejects.toMatchObject({ stderr: expect.stringContaining("CUDA emulation: a ") });
  });
});
