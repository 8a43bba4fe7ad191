/** Sixteen-bit floats: widening is exact, narrowing goes to the nearest. */
import { rm } from "node:fs/promises";
import fc from "fast-check";
import { expect, it } from "vitest";
import { writeRandomCheckpoint } from "../../src/compiler/random-checkpoint.ts";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { narrowBf16, narrowF16, widenBf16, widenF16 } from "../../src/model/dtypes.ts";
import { readAll } from "../../src/model/weights.ts";
import { maxDifference } from "../helpers/arrays.ts";
import { TINY_SHAPE, temporaryFolder } from "../helpers/checkpoints.ts";

const ALL = Uint16Array.from({ length: 2 ** 16 }, (_, bits) => bits);
const isNaN16 = (bits: number) => (bits & 0x7fff) > 0x7c00;

it("every f16 that is a number survives being widened and narrowed", () => {
  const numbers = ALL.filter((bits) => !isNaN16(bits));
  expect(narrowF16(widenF16(numbers))).toEqual(numbers);
  expect([...narrowF16(Float32Array.of(Number.NaN, -0))].map((bits) => bits.toString(16))).toEqual(["7e00", "8000"]);
});

it("narrows to the nearest f16, of two as near to the even one, and to infinity past the largest", () => {
  /** Ascending, infinity as the next power of two, as rounding sees it. */
  const positive = widenF16(ALL.subarray(0, 0x7c01));
  positive[0x7c00] = 65_536;
  fc.assert(
    fc.property(fc.float({ min: 0, max: 65_535, noNaN: true }), (x) => {
      const bits = narrowF16(Float32Array.of(x))[0]!;
      const distance = (other: number) => Math.abs(positive[other]! - x);
      for (const neighbour of [bits - 1, bits + 1].filter((other) => other >= 0 && other <= 0x7c00)) {
        expect(distance(bits)).toBeLessThanOrEqual(distance(neighbour));
        if (distance(bits) === distance(neighbour)) expect(bits % 2).toBe(0);
      }
      expect(narrowF16(Float32Array.of(-x))[0]).toBe(bits | 0x8000);
    }),
  );
  // Halfway between neighbours, which random numbers seldom are.
  const halfway = positive.slice(0, 0x7c00).map((value, bits) => (value + positive[bits + 1]!) / 2);
  expect([...narrowF16(halfway)]).toEqual([...halfway.keys()].map((bits) => bits + (bits % 2)));
});

it("a random checkpoint in F16 is the one in F32, rounded", async () => {
  const [whole, half] = [temporaryFolder(), temporaryFolder()];
  await writeRandomCheckpoint({ outDir: whole, shape: TINY_SHAPE, seed: 3 });
  await writeRandomCheckpoint({ outDir: half, shape: TINY_SHAPE, seed: 3, dtype: "F16" });
  const [a, b] = [openCheckpoint(whole), openCheckpoint(half)];
  for (const { name } of a.tensors) {
    expect(b.tensor(name).dtype).toBe("F16");
    expect(maxDifference(readAll(b.tensor(name)), widenF16(narrowF16(readAll(a.tensor(name)))))).toBe(0);
  }
  a.close();
  b.close();
  await Promise.all([whole, half].map((dir) => rm(dir, { recursive: true })));
});

it("bf16 is the upper half of f32, rounded to the nearest, of two as near to the even one", () => {
  const all = Uint16Array.from({ length: 2 ** 16 }, (_, bits) => bits);
  const finite = all.filter((bits) => (bits & 0x7f80) !== 0x7f80);
  expect(narrowBf16(widenBf16(finite))).toEqual(finite);
  const word = (bits: number) => new Float32Array(Uint32Array.of(bits).buffer)[0]!;
  const rounded = (bits: number) => narrowBf16(Float32Array.of(word(bits)))[0]!.toString(16);
  expect(rounded(0x3f80_7fff)).toBe("3f80");
  expect(rounded(0x3f80_8000)).toBe("3f80");
  expect(rounded(0x3f81_8000)).toBe("3f82");
  expect(rounded(0xbf80_8001)).toBe("bf81");
  expect(rounded(0x7f7f_ffff)).toBe("7f80"); // beyond the largest
  for (const nan of [0x7f80_0001, 0x7fff_ffff, 0xffc0_0000])
    expect(widenBf16(narrowBf16(Float32Array.of(word(nan))))[0]).toBeNaN();
  expect(narrowBf16(Float32Array.of(1e5))[0]).not.toBe(0x7f80); // which f16 cannot hold
});
