import { describe, expect, it } from "vitest";
import { combinedRate } from "../../src/bench/bandwidth.ts";

describe("the memory's read bandwidth", () => {
  // Old bug: the threads' own rates were added up, so that two of them that ran one after the other
  // showed twice the memory's rate.
  it("counts threads that read one after the other no faster than one", () => {
    const first = { startMs: 5000, endMs: 6000, bytes: 20e9 };
    expect(combinedRate([first])).toBe(20e9);
    expect(combinedRate([first, { startMs: 6000, endMs: 7000, bytes: 20e9 }])).toBe(20e9);
    expect(combinedRate([first, { ...first }])).toBe(40e9);
  });
});
