/**
 * Mamba-2 and RWKV-7 through the commands: engine, runner and snapshots see nothing of their
 * families.
 */
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { readAll } from "../../src/model/weights.ts";
import { randomCheckpoint, temporaryFolder, writeRawTensors } from "../helpers/checkpoints.ts";
import { logProbabilities } from "../helpers/log-probabilities.ts";
import { WORLD_FILE, worldText } from "../helpers/world-vocabulary.ts";
import { runProgram } from "./program-run.ts";

let folder: string;
beforeAll(() => {
  folder = temporaryFolder();
});
afterAll(() => rmSync(folder, { recursive: true }));

async function output(args: readonly string[]): Promise<string> {
  const run = runProgram([...args, "--device", "cpu"]);
  expect(await run.exitCode, run.stderr.text).toBe(0);
  return run.stdout.text;
}

describe.each(["hf-tiny-mamba2", "rwkv7-tiny", "rwkv7-tiny/model.pth"])("score of %s", (name) => {
  it.each(["1", "7", "128"])("gives the log-probabilities of others, read in chunks of %s", async (chunk) => {
    const model = path.join("test/fixtures", name);
    const expected = path.join(name.endsWith(".pth") ? path.dirname(model) : model, "expected.json");
    const [{ token_ids, logits }] = JSON.parse(readFileSync(expected, "utf8")).sequences;
    const args = ["--model", model, "--precision", "f32", "--cache-dir", folder, "--prefill-chunk", chunk];
    const { positions } = JSON.parse(await output(["score", ...args, "--token-ids", token_ids.join(",")]));
    for (let t = 1; t < token_ids.length; t++) {
      expect(Math.abs(positions[t].logprob - logProbabilities(logits[t - 1])[token_ids[t]]!)).toBeLessThan(1e-4);
    }
  });
});

describe("an RWKV-7 that is one file, beside its vocabulary", () => {
  it("is inspected, and writes text", async () => {
    const ranks = { w: 8, a: 8, v: 4, g: 8 };
    const sizes = { vocabSize: 320, hiddenSize: 64, numLayers: 2, denseLayers: 0 } as const;
    const modelDir = await randomCheckpoint({ kind: "rwkv7", ...sizes, headDim: 16, ranks });
    const checkpoint = openCheckpoint(modelDir);
    const tensors = checkpoint.tensors.map(({ name, shape }) => {
      const bytes = new Uint8Array(readAll(checkpoint.tensor(name)).buffer);
      return [name, { dtype: "F32", shape, bytes }] as const;
    });
    checkpoint.close();
    rmSync(modelDir, { recursive: true });
    // Sizes follow from the tensors.
    writeRawTensors(folder, new Map(tensors));
    writeFileSync(path.join(folder, "config.json"), JSON.stringify({ model_type: "rwkv7" }));
    const vocabulary = path.join(folder, WORLD_FILE);
    writeFileSync(vocabulary, worldText());
    const model = path.join(folder, "model.safetensors");

    expect(await output(["inspect", "--model", model])).toMatch(/^family +rwkv7$/m);
    const common = ["--cache-dir", folder, "--precision", "int8", "--max-tokens", "12", "--seed", "5"];
    const generate = (...args: string[]) => output(["generate", ...args, ...common, "--prompt", "the user's 你好"]);
    const text = await generate("--model", model);
    expect(text.length).toBeGreaterThan(3);
    const elsewhere = path.join(folder, "elsewhere.txt");
    renameSync(vocabulary, elsewhere);
    expect(await generate("--model", model, "--tokenizer", elsewhere)).toBe(text);
    const refused = runProgram(["generate", "--model", model, "--prompt", "the"]);
    expect(await refused.exitCode).toBe(1);
    expect(refused.stderr.text).toContain("has no tokenizer.json");
  });
});
