/** Which runs are made where they are asked for. */
import { expect, it } from "vitest";
import { RunTimes } from "../../src/runtime/native/run-times.ts";

it("takes no run for short that has never been made", () => {
  const times = new RunTimes();
  times.record(1, 0.3);
  expect([times.isShort(1), times.isShort(2)]).toEqual([true, false]);
});

it("is not misled by a run that was interrupted", () => {
  const times = new RunTimes();
  times.record(1, 0.3);
  times.record(1, 9);
  expect(times.isShort(1)).toBe(true);
});

it("learns that runs have become long, and that they are short again", () => {
  const times = new RunTimes();
  times.record(1, 0.3);
  for (let i = 0; i < 8; i++) times.record(1, 9);
  expect(times.isShort(1)).toBe(false);
  times.record(1, 0.3);
  expect(times.isShort(1)).toBe(true);
});
