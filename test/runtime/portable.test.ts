/**
 * What only the portable runner has to prove: a worker that dies takes its call with it and nothing
 * else.
 */
import { execFile } from "node:child_process";
import { rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PortableRunner } from "../../src/runtime/portable/portable-runner.ts";
import { CompiledTiny } from "../helpers/compiled-tiny.ts";

let artifact: CompiledTiny;
beforeAll(async () => {
  artifact = await CompiledTiny.create();
});
afterAll(() => artifact.remove());

function open(): Promise<PortableRunner> {
  return PortableRunner.open({ artifactDir: artifact.dir, numSlots: 1, numThreads: 1, device: "cpu" });
}

function input(numSteps: number) {
  const tokenIds = new Int32Array(numSteps).fill(3);
  return { firstSlot: 0, lengths: [numSteps], tokenIds, logitRows: [numSteps - 1], temperatures: [1] };
}

describe("portable runner", () => {
  it("fails the call in flight and all later ones when its worker dies, and another one opens", async () => {
    const runner = await open();
    const running = expect(runner.run(input(10_000))).rejects.toMatchObject({
      code: "runtime_fault",
      message: expect.stringContaining("worker died"),
    });
    await runner.killWorker();
    await running;
    await expect(runner.run(input(1))).rejects.toMatchObject({ code: "runtime_fault" });
    await expect(runner.readSlot(0)).rejects.toMatchObject({ code: "runtime_fault" });
    await runner.close();

    const next = await open();
    expect((await next.run(input(1))).numRows).toBe(1);
    await next.close();
  });

  it("fails the next call when its worker died idle", async () => {
    const runner = await open();
    await runner.killWorker();
    await expect(runner.run(input(1))).rejects.toMatchObject({ code: "runtime_fault" });
    await runner.close();
  });

  it("starts its worker from the built JavaScript too", async () => {
    const root = path.join(import.meta.dirname, "../..");
    const outDir = path.join(root, "node_modules/.cache/densemamba-runtime-test"); // below node_modules, to resolve packages
    const run = promisify(execFile);
    try {
      await run(process.execPath, [
        path.join(root, "node_modules/typescript/bin/tsc"),
        ...["-p", path.join(root, "tsconfig.build.json"), "--outDir", outDir, "--noCheck"],
      ]);
      const script = `
        import { openRunner } from "./runtime/open.js";
        const options = { artifactDir: ${JSON.stringify(artifact.dir)}, numSlots: 1, numThreads: 1, device: "cpu" };
        const outputs = [];
        for (const kind of ["native", "portable"]) {
          const runner = await openRunner(kind, options);
          const output = await runner.run(${JSON.stringify({ ...input(2), tokenIds: [5, 9] })});
          outputs.push([...output.logitsOf(0)]);
          await runner.close();
        }
        console.log(JSON.stringify(outputs));`;
      const main = path.join(outDir, "main.mjs");
      await writeFile(main, script);
      const { stdout } = await run(process.execPath, [main]);
      const [native, portable] = JSON.parse(stdout);
      expect(native).toHaveLength(48);
      expect(portable).toEqual(native);
    } finally {
      await rm(outDir, { recursive: true, force: true });
    }
  });
});
