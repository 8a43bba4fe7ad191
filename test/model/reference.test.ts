import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { type Checkpoint, openCheckpoint } from "../../src/model/checkpoint.ts";
import { ReferenceModel } from "../../src/model/reference.ts";
import { maxDifference } from "../helpers/arrays.ts";
import { logSoftmax, type TalesFixture, type TinyFixture } from "../helpers/torch-fixtures.ts";

let checkpoint: Checkpoint;
afterEach(() => checkpoint.close());

function open(modelDir: string): ReferenceModel {
  checkpoint = openCheckpoint(modelDir);
  return new ReferenceModel(checkpoint);
}

describe.each(["torch-tiny-densemamba", "torch-tiny-mamba", "torch-tiny-shared-gate"])("the oracle on %s", (name) => {
  const modelDir = join("test/fixtures", name);
  const fixture = JSON.parse(readFileSync(join(modelDir, "expected.json"), "utf8")) as TinyFixture;

  it("gives the logits and states of the PyTorch implementation", () => {
    const model = open(modelDir);
    for (const sequence of fixture.sequences) {
      const state = model.newState();
      const logits = model.forward(sequence.token_ids, state);
      for (const [t, row] of sequence.logits.entries()) expect(maxDifference(logits[t]!, row)).toBeLessThan(1e-4);
      for (const [l, h] of sequence.ssm.entries()) {
        expect(maxDifference(state.get(`ssm.${l}`)!, h.flat())).toBeLessThan(1e-4);
      }
      for (const [l, inputs] of sequence.conv.entries()) {
        expect(maxDifference(state.get(`conv.${l}`)!, inputs.flat())).toBeLessThan(1e-4);
      }
    }
  });

  it("carries its state: a sequence read in two parts is the sequence read in one", () => {
    const model = open(modelDir);
    const tokenIds = fixture.sequences[0]!.token_ids;
    const whole = model.forward(tokenIds, model.newState());
    const state = model.newState();
    const parts = [...model.forward(tokenIds.slice(0, 5), state), ...model.forward(tokenIds.slice(5), state)];
    expect(parts).toEqual(whole);
  });
});

describe("the oracle on the default model", () => {
  it("gives PyTorch's log-probabilities and argmax on a held-back prompt", () => {
    const fixture = JSON.parse(readFileSync("test/fixtures/torch-densemamba-tales.json", "utf8")) as TalesFixture;
    const model = open("models/densemamba-tales-4m");
    const { token_ids, logprobs, argmax } = fixture.prompts[0]!;
    const rows = model.forward(token_ids, model.newState()).map(logSoftmax);
    expect(rows.map((row) => row.indexOf(Math.max(...row)))).toEqual(argmax);
    const given = token_ids.slice(1).map((id, t) => rows[t]![id]!);
    expect(maxDifference(given, logprobs.slice(1) as number[])).toBeLessThan(1e-3);
  });
});
