/** What a manifest says of its artifact's numbers. */
import { expect, it } from "vitest";
import { numericMode } from "../../src/model/manifest.ts";

it("names the numeric mode by precision and operators", () => {
  expect(numericMode({ precision: "f32", kernels: undefined })).toBe("exact");
  expect(numericMode({ precision: "f32", kernels: 1 })).toBe("exact");
  expect(numericMode({ precision: "int8", kernels: 1 })).toBe("batch-invariant");
  expect(numericMode({ precision: "int4", kernels: 1 })).toBe("batch-invariant");
  expect(numericMode({ precision: "int8", kernels: undefined })).toBe("fast");
  expect(numericMode({ precision: "f16", kernels: undefined })).toBe("fast");
});
