/**
 * `densemamba eval` against the oracle: the packaged model on two short documents, and what it
 * refuses.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { ReferenceModel } from "../../src/model/reference.ts";
import { loadTokenizer } from "../../src/tokenizer/load.ts";
import { SHARED_ARTIFACTS } from "../helpers/shared-artifacts.ts";
import { logSoftmax } from "../helpers/torch-fixtures.ts";
import { runProgram } from "./program-run.ts";

const MODEL = "models/densemamba-tales-4m";
const DOCUMENTS = ["Once upon a time there lived a king.", "“Who’s there?” cried\nthe Ogre."];

let folder: string;
let args: string[];

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "densemamba-eval-"));
  const text = path.join(folder, "text.txt");
  await writeFile(text, DOCUMENTS.map((document) => `${document}\n<|endoftext|>\n`).join(""));
  args = ["eval", "--text", text, "--cache-dir", SHARED_ARTIFACTS, "--device", "cpu", "--precision", "f32"];
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function evaluation(more: readonly string[] = [], stdin?: string) {
  const run = runProgram([...args, ...more], stdin);
  expect(await run.exitCode, run.stderr.text).toBe(0);
  return { json: JSON.parse(run.stdout.text), table: run.stderr.text };
}

/** -Σ log p in nats, and how many tokens, of documents that begin after BOS in an empty state. */
async function oracle(documents: readonly string[]) {
  const tokenizer = (await loadTokenizer(MODEL))!;
  const checkpoint = openCheckpoint(MODEL);
  const model = new ReferenceModel(checkpoint);
  let loss = 0;
  let numTokens = 0;
  for (const document of documents) {
    const ids = await tokenizer.encode(document, { addSpecialTokens: false });
    const rows = model.forward([checkpoint.bosTokenId!, ...ids.slice(0, -1)], model.newState()).map(logSoftmax);
    loss -= ids.reduce((sum, id, t) => sum + rows[t]![id]!, 0);
    numTokens += ids.length;
  }
  checkpoint.close();
  return { loss, numTokens };
}

describe("eval", () => {
  it("gives the oracle's perplexity and bits per byte, first tokens included, with any chunk", async () => {
    const { loss, numTokens } = await oracle(DOCUMENTS);
    const numBytes = DOCUMENTS.reduce((sum, document) => sum + Buffer.byteLength(document), 0);
    for (const chunk of ["3", "128"]) {
      const { json, table } = await evaluation(["--prefill-chunk", chunk]);
      expect(json).toMatchObject({ model: "densemamba-tales-4m", precision: "f32", documents: 2 });
      expect([json.tokens, json.bytes]).toEqual([numTokens, numBytes]);
      expect(json.perplexity / Math.exp(loss / numTokens)).toBeCloseTo(1, 4);
      expect(json.bits_per_byte / (loss / Math.LN2 / numBytes)).toBeCloseTo(1, 4);
      expect(json.against).toBeUndefined();
      expect(table).toContain(`perplexity    ${json.perplexity.toFixed(4)}\n`);
    }
  });

  it("finds no divergence of a model from itself", async () => {
    const { json } = await evaluation(["--against", "f32"]);
    const { perplexity, bits_per_byte } = json;
    expect(json.against).toMatchObject({ precision: "f32", perplexity, bits_per_byte, top1_agreement: 1 });
    expect(json.against.mean_kl).toBeCloseTo(0, 9);
  });

  it.each([
    ["int8", 0.002],
    ["int4", 0.03],
  ])("compares %s with f32: a small divergence, and f32's own loss beside it", async (precision, bound) => {
    const { json: f32 } = await evaluation();
    const { json } = await evaluation(["--precision", precision, "--against", "f32"]);
    expect(json.precision).toBe(precision);
    expect(json.perplexity).not.toBe(f32.perplexity);
    expect(json.against.perplexity).toBe(f32.perplexity);
    expect(json.against.mean_kl).toBeGreaterThan(0);
    expect(json.against.mean_kl).toBeLessThan(bound);
    expect(json.against.top1_agreement).toBeGreaterThan(0.8);
  });

  it("reads standard input, also with Windows' line ends", async () => {
    const { json } = await evaluation(["--text", "-"], DOCUMENTS.join("\r\n<|endoftext|>\r\n"));
    expect([json.documents, json.perplexity]).toEqual([2, (await evaluation()).json.perplexity]);
  });

  it.each([
    ["a text that does not exist", ["--text", "no/such/file"], /cannot read --text no\/such\/file/],
    ["one without documents", ["--text", "-"], /at least one document/],
    ["a model without a tokenizer", ["--model", "test/fixtures/torch-tiny-mamba"], /has no tokenizer\.json/],
    ["an unknown precision", ["--against", "int3"], /int3/],
  ])("refuses %s", async (_, more, message) => {
    const run = runProgram([...args, ...more], "<|endoftext|>\n");
    expect(await run.exitCode).toBe(1);
    expect(run.stdout.text).toBe("");
    expect(run.stderr.text).toMatch(message);
  });
});
