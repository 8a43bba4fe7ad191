/** What a manifest says of its artifact's numbers. */
import { expect, it } from "vitest";
import { numericMode } from "../../src/model/manifest.ts";

it("names the numeric mode by precision and operators", () => {
  expect(numericMode({ precision: "f32" })).toBe("exact");
  expect(numericMode({ precision: "f32", ragged: true })).toBe("exact");
  expect(numericMode({ precision: "int8", ragged: true })).toBe("batch-invariant");
  expect(numericMode({ precision: "int4", ragged: true })).toBe("batch-invariant");
  expect(numericMode({ precision: "int8", ragged: true, device: "cuda" })).toBe("fast");
  expect(numericMode({ precision: "int8" })).toBe("fast");
  const state = [{ name: "ssm.0", shape: [4], dtype: "f16" as const }];
  for (const precision of ["f32", "int8"] as const)
    expect(numericMode({ precision, ragged: true, state })).toBe("fast");
  expect(numericMode({ precision: "f16" })).toBe("fast");
});
