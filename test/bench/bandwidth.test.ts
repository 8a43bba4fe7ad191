import { describe, expect, it } from "vitest";
import { rateTogether } from "../../src/bench/bandwidth.ts";

describe("the memory's read bandwidth", () => {
  // Their own rates were added up, and two threads that took turns told of twice what memory gives.
  it("counts threads that read one after the other no faster than one", () => {
    const first = { startMs: 5000, endMs: 6000, bytes: 20e9 };
    expect(rateTogether([first])).toBe(20e9);
    expect(rateTogether([first, { startMs: 6000, endMs: 7000, bytes: 20e9 }])).toBe(20e9);
    expect(rateTogether([first, { ...first }])).toBe(40e9);
  });
});
