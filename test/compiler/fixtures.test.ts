import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { compileModel } from "../../src/compiler/compile.ts";
import { GraphSession, maxDifference } from "./graph-session.ts";

interface Expected {
  readonly sequences: {
    readonly token_ids: number[];
    readonly logits: number[][];
    readonly ssm: number[][][];
    readonly conv: number[][][];
  }[];
}

describe.each(["torch-tiny-densemamba", "torch-tiny-mamba", "torch-tiny-shared-gate"])("compiled %s in f32", (name) => {
  const modelDir = join("test/fixtures", name);
  const expected = JSON.parse(readFileSync(join(modelDir, "expected.json"), "utf8")) as Expected;
  let outDir: string;
  let session: GraphSession;

  beforeAll(async () => {
    outDir = await mkdtemp(join(tmpdir(), "compiled-"));
    session = await GraphSession.open(outDir, await compileModel({ modelDir, precision: "f32", outDir }));
  });
  afterAll(async () => {
    await session.close();
    await rm(outDir, { recursive: true });
  });

  it("gives the logits and states of the PyTorch reference", async () => {
    for (const { token_ids, logits, ssm, conv } of expected.sequences) {
      const result = await session.step([token_ids], session.emptyStates(1));
      for (const [t, row] of logits.entries()) expect(maxDifference(result.logits[t]!, row)).toBeLessThan(1e-3);
      for (const [l, h] of ssm.entries())
        expect(maxDifference(result.states.get(`ssm.${l}`)!, h.flat())).toBeLessThan(1e-4);
      for (const [l, c] of conv.entries())
        expect(maxDifference(result.states.get(`conv.${l}`)!, c.flat())).toBeLessThan(1e-4);
    }
  });
});
