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
  expect(numericMode({ precision: "f16" })).toBe("fast");
});
