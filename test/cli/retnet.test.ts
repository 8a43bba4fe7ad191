/** A DenseRetNet through the commands: engine, runner and snapshots see nothing of its family. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { RETNET_GOLDENS, readRetNetGolden } from "../helpers/retnet-goldens.ts";
import { logSoftmax } from "../helpers/torch-fixtures.ts";
import { runProgram } from "./program-run.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "densemamba-retnet-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function output(args: readonly string[]): Promise<string> {
  const run = runProgram([...args, "--device", "cpu"]);
  expect(await run.exitCode, run.stderr.text).toBe(0);
  return run.stdout.text;
}

describe.each(RETNET_GOLDENS)("score of %s", (name) => {
  it.each(["1", "7", "128"])("gives the authors' log-probabilities, read in chunks of %s", async (chunk) => {
    const { modelDir, sequences } = readRetNetGolden(name);
    const { tokenIds, logits } = sequences[0]!;
    const args = ["--model", modelDir, "--precision", "f32", "--cache-dir", folder, "--prefill-chunk", chunk];
    const { positions } = JSON.parse(await output(["score", ...args, "--token-ids", tokenIds.join(",")]));
    expect(positions).toHaveLength(tokenIds.length);
    for (const [t, id] of tokenIds.entries()) {
      if (t === 0) continue;
      const expected = logSoftmax(logits[t - 1]!)[id]!;
      expect(Math.abs(positions[t].logprob - expected)).toBeLessThan(2e-4);
    }
  });
});

describe("a prompt chunk beyond the model's bound", () => {
  it("is refused with both numbers", async () => {
    const args = ["score", "--model", "test/fixtures/dense-retnet-hub", "--token-ids", "1,2", "--cache-dir", folder];
    const run = runProgram([...args, "--device", "cpu", "--prefill-chunk", "4097"]);
    expect(await run.exitCode).not.toBe(0);
    expect(run.stderr.text).toMatch(/--prefill-chunk must be at most 4096 .*dense_retnet.* 4097 given/);
  });
});

describe("inspect", () => {
  it("counts what all layers share once", async () => {
    const text = await output(["inspect", "--model", "test/fixtures/dense-retnet-hub"]);
    expect(text).toMatch(/^family +dense_retnet$/m);
    expect(text).toMatch(/\(32776 bytes\) a session/);
    expect(text).toMatch(/^all +position \[2\] 8 B$/m);
    expect(text).toMatch(/^0–3 +kv \[2,16,64\] 8 KiB$/m);
  });

  it("counts two bytes for an f16", async () => {
    const args = ["inspect", "--model", "test/fixtures/dense-retnet-hub", "--precision", "f16"];
    expect(await output(args)).toMatch(/^0–3 +kv \[2,16,64\] f16 4 KiB$/m);
    const json = JSON.parse(await output([...args, "--json"]));
    expect(json.state_bytes_per_session).toBe(16_392);
    expect(json.sessions_per_gib).toBe(Math.floor(2 ** 30 / 16_392));
    expect(json.state[1]).toEqual({ name: "kv.0", shape: [2, 16, 64], dtype: "f16", bytes: 4096 });
  });
});
