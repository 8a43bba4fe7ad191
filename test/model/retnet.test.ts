/** The oracle against the authors' code, and what a RetNet checkpoint may and may not look like. */
import { describe, expect, it } from "vitest";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { ReferenceModel } from "../../src/model/reference.ts";
import { maxDifference } from "../helpers/arrays.ts";
import { RETNET_GOLDENS, readRetNetGolden } from "../helpers/retnet-goldens.ts";

describe.each(RETNET_GOLDENS)("the oracle on %s", (name) => {
  const golden = readRetNetGolden(name);

  it("gives the authors' recurrent logits at every position", () => {
    const checkpoint = openCheckpoint(golden.modelDir);
    const model = new ReferenceModel(checkpoint);
    for (const { tokenIds, logits } of golden.sequences) {
      const actual = model.forward(tokenIds, model.newState());
      for (const [t, row] of logits.entries()) {
        expect(maxDifference(actual[t]!, row)).toBeLessThan(2e-4);
        expect(actual[t]!.indexOf(Math.max(...actual[t]!))).toBe(row.indexOf(Math.max(...row)));
      }
    }
    checkpoint.close();
  });
});
