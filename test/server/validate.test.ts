import { expect, test } from "vitest";
import { show } from "../../src/server/openai/validate.ts";

test("a number beyond all bounds is shown as parsed", () => {
  const { seed } = JSON.parse('{"seed": 1e999}');
  expect(show(seed)).toBe("Infinity");
  expect([show(null), show(-0.5), show(2n ** 63n), show("a")]).toEqual(["null", "-0.5", "9223372036854775808", '"a"']);
});
