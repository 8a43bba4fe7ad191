/**
 * scripts/gpu-check.sh from its first line to its last, on the simulated device and with tiny
 * models: that all of it runs, and what it says. What it measures there means nothing, but for the
 * calls that it counts.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { chmod, copyFile, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type CheckResult, checkSection, problemsOf } from "../../bench/gpu/report.ts";
import { SECTIONS } from "../../bench/gpu/sections.ts";
import { GPU_SHAPES } from "../../bench/gpu/shapes.ts";
import { buildSimulatedDevice } from "../cuda-device/build.ts";
import { hasProvider, PROVIDER } from "../cuda-device/simulated-cuda.ts";

const run = promisify(execFile);

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "densemamba-gpu-check-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** Runs what it is given, once, and says what the real one says. */
const SANITIZER = `#!/usr/bin/env bash
[ "$2" = racecheck ] && exit 9
while [ "\${1#--}" != "$1" ]; do shift 2; done
"$@" && echo "========= ERROR SUMMARY: 0 errors"
`;

async function check(environment: Readonly<Record<string, string>>, ...args: string[]) {
  const [out, page] = [path.join(folder, "result.json"), path.join(folder, "gpu.md")];
  await copyFile("docs/gpu.md", page);
  await rm(out, { force: true });
  const files = ["--out", out, "--page", page, "--cache", path.join(folder, "cache")];
  const env = { ...process.env, ...environment };
  const ended = await run("bash", ["scripts/gpu-check.sh", "--tiny", ...files, ...args], { env }).catch(
    (error: { readonly code: number; readonly stderr: string }) => error,
  );
  expect(existsSync(out), ended.stderr).toBe(true);
  const result: CheckResult = JSON.parse(await readFile(out, "utf8"));
  return { code: "code" in ended ? ended.code : 0, stderr: ended.stderr, result, page: await readFile(page, "utf8") };
}

describe.runIf(hasProvider)("on the simulated device", () => {
  let environment: Record<string, string>;
  beforeAll(async () => {
    const { device, kernels } = await buildSimulatedDevice(PROVIDER);
    const bin = path.join(folder, "compute-sanitizer");
    await writeFile(bin, SANITIZER);
    await chmod(bin, 0o755);
    environment = {
      LD_LIBRARY_PATH: path.dirname(device[0]!),
      DENSEMAMBA_KERNEL_LIBRARY: kernels,
      PATH: `${folder}:${process.env.PATH}`,
      CUDA_HOME: folder,
    };
  }, 240_000);

  it("goes through all sections, and its table is in the page", { timeout: 400_000 }, async () => {
    const { stderr, result, page } = await check(environment);
    const [first, ...others] = Object.keys(SECTIONS);
    const names = [first, "calls", "mamba-130m", "memcheck", "racecheck", ...others.slice(2)];
    expect(
      result.sections.map(({ name, status }) => `${name} ${status}`),
      stderr,
    ).toEqual(names.map((name) => `${name} ${name === "racecheck" ? "failed" : "done"}`));
    const speeds = result.figures.filter((figure) => figure.kind === "speed");
    for (const shape of Object.keys(GPU_SHAPES)) {
      const passes = speeds
        .filter((figure) => figure.shape === shape)
        .map(({ pass, numSequences }) => [pass, numSequences]);
      expect(passes).toEqual(
        [1, 2].flatMap((numSequences) =>
          ["decode, captured", "decode, not captured", "prefill"].map((pass) => [pass, numSequences]),
        ),
      );
    }
    expect(result.figures.filter(({ kind }) => kind === "note")).toEqual([]);
    expect(page).toContain(checkSection(result));

    // What a device is to be compared with. If ONNX Runtime's calls have changed for good: -u
    // writes them.
    const calls = result.figures.filter((figure) => figure.kind === "calls").map(({ kind: _, ...figure }) => figure);
    await expect(`${JSON.stringify(calls, null, 2)}\n`).toMatchFileSnapshot("../../bench/gpu/simulated.json");
  });

  it("ends in time, and says what it left out", { timeout: 120_000 }, async () => {
    const { code, result } = await check(environment, "--budget", "6");
    expect(code).toBe(1);
    const [first, ...others] = result.sections;
    expect(first!.seconds).toBeLessThan(10);
    for (const { status, reason } of others) expect([status, reason]).toEqual(["skipped", "no time was left"]);
    expect(problemsOf(result).join("\n")).toContain("flatness skipped: no time was left");
  });
});

describe("the report", () => {
  const speed = {
    kind: "speed",
    shape: "mamba-130m",
    precision: "bf16",
    numSequences: 1,
    tokensPerSecond: 8900,
  } as const;
  const sound: CheckResult = {
    gpu: "NVIDIA H200, 143771 MiB, 580.1",
    at: "2030-01-01T00:00:00Z",
    node: "v22.22.2",
    isTiny: false,
    sections: [{ name: "goldens", status: "done", seconds: 3 }],
    figures: [
      { kind: "golden", name: "tiny", precision: "f32", difference: 1e-6, tolerance: 1e-4 },
      { kind: "calls", run: "a step", copies: 1, bytes: 64, waits: 0 },
      { ...speed, pass: "decode, captured" },
      { kind: "flatness", shape: "mamba-130m", numTokens: 1024, stepMs: 0.2 },
      { kind: "flatness", shape: "mamba-130m", numTokens: 65_536, stepMs: 0.21 },
    ],
    expectedCalls: [{ run: "a step", copies: 1, bytes: 64, waits: 0 }],
  };

  it("sets a speed beside what its device could make of the model", () => {
    expect(problemsOf(sound)).toEqual([]);
    const section = checkSection(sound);
    expect(section).toContain("Everything is as it should be.");
    expect(section).toMatch(/mamba-130m \| bf16 .*\| decode, captured \| 1 .*\| 8,900 .*\| 50%/);
    expect(checkSection({ ...sound, gpu: "NVIDIA A100" })).not.toContain("50%");
  });

  it.each([
    [
      "a golden that is off",
      { kind: "golden", name: "tiny", precision: "f32", difference: 2e-4, tolerance: 1e-4 },
      "is 0.0002 off",
    ],
    [
      "a golden that is no number",
      { kind: "golden", name: "tiny", precision: "f32", difference: null, tolerance: 1e-4 },
      "no number",
    ],
    [
      "more calls than simulated",
      { kind: "calls", run: "a step", copies: 2, bytes: 64, waits: 1 },
      "2 copies of 64 bytes, 1 waits",
    ],
    [
      "a step that grows",
      { kind: "flatness", shape: "mamba-130m", numTokens: 131_072, stepMs: 0.3 },
      "a step takes 0.3 ms",
    ],
    ["a runner that says so", { kind: "note", text: "steps are not captured" }, "steps are not captured"],
  ] as const)("names %s", (_, figure, problem) => {
    expect(problemsOf({ ...sound, figures: [...sound.figures, figure] })).toEqual([expect.stringContaining(problem)]);
  });

  it("names a section that failed, with what it said", () => {
    const section = {
      name: "memcheck",
      status: "failed",
      seconds: 1,
      reason: "ended with 9",
      said: "Invalid write",
    } as const;
    expect(problemsOf({ ...sound, sections: [section] })).toEqual(["memcheck failed: ended with 9\nInvalid write"]);
    expect(checkSection({ ...sound, sections: [section] })).toContain("- memcheck failed: ended with 9\n");
  });
});
