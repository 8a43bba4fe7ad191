/**
 * The kernels' own tests, plain C programs in kernels/test/, under AddressSanitizer and UBSan: each
 * is compiled with the operator of its name once per instruction set, and says nothing if all is
 * well.
 */
import { execFile, spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { instructionSets } from "../../src/runtime/native/kernel-build.ts";
import { sanitizerFlags } from "../helpers/sanitizers.ts";

const CC = process.env.CC || "cc";
const FLAGS = [
  ...[
    "-std=gnu11",
    "-O1",
    ...["-g", "-fno-var-tracking"], // which takes GCC longer than all the rest
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-psabi",
    "-Wno-unused-function",
    "-Wno-missing-field-initializers",
  ],
  ...sanitizerFlags(CC),
];
const run = promisify(execFile);
const hasCompiler = spawnSync(CC, ["--version"], { timeout: 60_000 }).status === 0;

const tests = readdirSync("kernels/test")
  .filter((name) => name.endsWith(".c"))
  .map((name) => path.basename(name, ".c"));

/** Prints the instruction sets that this CPU has. */
const PROBE = `
#include <stdio.h>
#include "isa.h"
#define PRINT(set) if (dm_supports_##set()) puts(#set);
int main(void) { DM_ISAS(PRINT) return 0; }
`;

let folder: string;
let supported: readonly string[] = [];
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "densemamba-kernels-c-"));
  if (!hasCompiler) return;
  const source = path.join(folder, "probe.c");
  await writeFile(source, PROBE);
  await run(CC, ["-Ikernels", source, "-o", path.join(folder, "probe")]);
  supported = (await run(path.join(folder, "probe"), [])).stdout.split("\n");
});
afterAll(() => rm(folder, { recursive: true, force: true }));

it("a system that does not grant AMX's tiles is one without AMX", async ({ skip }) => {
  if (!supported.includes("amx")) skip("this CPU has no AMX");
  const source = path.join(folder, "refused.c");
  await writeFile(source, `${PROBE}long syscall(long number, ...) { return -1; }\n`);
  await run(CC, ["-Ikernels", source, "-o", path.join(folder, "refused")]);
  const { stdout } = await run(path.join(folder, "refused"), []);
  expect(stdout.split("\n")).toEqual(supported.filter((set) => set !== "amx"));
});

describe.concurrent.each(tests)("kernels/test/%s.c", (name) => {
  it.for(Object.entries(instructionSets()))("%s", { timeout: 240_000 }, async ([set, flags], { skip }) => {
    if (!hasCompiler) skip(`${CC} is not here, and these are C programs`);
    if (!supported.includes(set)) skip(`this CPU has no ${set}`);
    const program = path.join(folder, `${name}-${set}`);
    const sources = ["kernels/op.c", `kernels/${name}.c`, `kernels/test/${name}.c`].filter((file) => existsSync(file));
    await run(CC, [...[...FLAGS, ...flags, `-DDM_ISA=${set}`], ...[...sources, "-o", program, "-pthread", "-lm"]]);
    const { stdout, stderr } = await run(program, []);
    expect(stdout + stderr).toBe("");
  });
});
