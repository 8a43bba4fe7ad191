import { describe, expect, test } from "vitest";
import type { LogitRows } from "../../src/model/logits.ts";
import { GREEDY, type SamplingParams } from "../../src/sampling/params.ts";
import { graphTemperature, Sampler, SamplingScratch } from "../../src/sampling/sampler.ts";
import { logitRows } from "../helpers/logit-rows.ts";

const scratch = new SamplingScratch();

function sampler(
  params: Partial<SamplingParams>,
  more: {
    context?: number[];
    minTokens?: number;
    stopTokenIds?: Set<number>;
    seed?: number;
    vocabSize?: number;
  } = {},
): Sampler {
  return new Sampler({
    params: { ...GREEDY, ...params },
    context: [more.context ?? []],
    minTokens: more.minTokens ?? 0,
    stopTokenIds: more.stopTokenIds ?? new Set(),
    seed: more.seed ?? 1,
    scratch,
    ...(more.vocabSize !== undefined && { vocabSize: more.vocabSize }),
  });
}

function sampleMany(target: Sampler, rows: LogitRows, count: number): number[] {
  return Array.from({ length: count }, () => target.sample(rows, 0));
}

const ramp = logitRows([[0, 1, 2, 3, 4]]);

describe("greedy", () => {
  test("takes the largest logit, of equal ones the lowest id", () => {
    expect(sampler({}).sample(logitRows([[1, 5, 0, 5]]), 0)).toBe(1);
    expect(sampler({ logitBias: new Map([[0, 4]]) }).sample(logitRows([[1, 5, 0, 5]]), 0)).toBe(0);
  });

  test("does not rely on the order of equal candidates", () => {
    const rows = logitRows([[1, 5, 0, 5]]);
    rows.topIds.set([3n, 1n, 0n, 2n]);
    expect(sampler({}).sample(rows, 0)).toBe(1);
  });

  test("ignores the seed", () => {
    expect(sampler({}, { seed: 1 }).sample(ramp, 0)).toBe(sampler({}, { seed: 2 }).sample(ramp, 0));
  });

  test("a temperature too small to divide by is greedy, and the graph is run with one it can divide by", () => {
    expect(sampleMany(sampler({ temperature: 1e-30 }), ramp, 20)).toEqual(Array(20).fill(4));
    expect(graphTemperature({ ...GREEDY, temperature: 1e-30 })).toBe(1);
    expect(graphTemperature({ ...GREEDY, temperature: 0.7 })).toBe(0.7);
  });
});

describe("seed", () => {
  const flat = logitRows([new Float32Array(500)]);

  test("the same seed gives the same tokens, another seed others", () => {
    const tokens = sampleMany(sampler({ temperature: 1 }, { seed: 42 }), flat, 50);
    expect(sampleMany(sampler({ temperature: 1 }, { seed: 42 }), flat, 50)).toEqual(tokens);
    expect(sampleMany(sampler({ temperature: 1 }, { seed: 43 }), flat, 50)).not.toEqual(tokens);
  });

  test("sequences that share a scratch do not touch each other", () => {
    const alone = sampleMany(sampler({ temperature: 1 }, { seed: 42 }), flat, 50);
    const [mine, other] = [sampler({ temperature: 1 }, { seed: 42 }), sampler({ temperature: 1, topP: 0.5 })];
    const beside = alone.map(() => {
      other.sample(ramp, 0);
      return mine.sample(flat, 0);
    });
    expect(beside).toEqual(alone);
  });

  test("a bias that changes no logit changes no token: both paths spend the random numbers alike", () => {
    const peaked = logitRows([Float32Array.from({ length: 500 }, (_, id) => Math.sin(id) * 8)]);
    const plain = sampleMany(sampler({ temperature: 1, topK: 40, topP: 0.9 }), peaked, 200);
    const biased = sampler({ temperature: 1, topK: 40, topP: 0.9, logitBias: new Map([[3, 0]]) });
    expect(sampleMany(biased, peaked, 200)).toEqual(plain);
  });
});

describe("what alters logits", () => {
  test("logit bias of 100 forces a token, of -100 forbids it", () => {
    expect(sampleMany(sampler({ temperature: 1, logitBias: new Map([[0, 100]]) }), ramp, 20)).toEqual(
      Array(20).fill(0),
    );
    const without = sampleMany(sampler({ temperature: 2, logitBias: new Map([[4, -100]]) }), ramp, 200);
    expect(without).not.toContain(4);
  });

  test("the repetition penalty divides positive logits and multiplies negative ones, prompt included", () => {
    const rows = logitRows([[3, 2, -1, -1.5]]);
    expect(sampler({ repetitionPenalty: 2 }, { context: [0] }).sample(rows, 0)).toBe(1);
    const negative = logitRows([[-1, -1.5]]);
    expect(sampler({ repetitionPenalty: 2 }, { context: [0] }).sample(negative, 0)).toBe(1);
  });

  test("the repetition penalty counts a token once, the output's tokens too", () => {
    const rows = logitRows([[4, 3, 1]]);
    expect(sampleMany(sampler({ repetitionPenalty: 2 }), rows, 3)).toEqual([0, 1, 0]);
  });

  test("presence and frequency penalties look at the output only", () => {
    const rows = logitRows([[4, 3.5, 3]]);
    expect(sampler({ presencePenalty: 2 }, { context: [0] }).sample(rows, 0)).toBe(0);
    expect(sampleMany(sampler({ presencePenalty: 2 }), rows, 4)).toEqual([0, 1, 2, 0]);
    // 4, then 3.5 beats 3.25, then 3.25 beats 3 and 2.75, then 3.
    expect(sampleMany(sampler({ frequencyPenalty: 0.75 }), rows, 4)).toEqual([0, 1, 0, 2]);
  });

  test("stop tokens are masked until minTokens are sampled", () => {
    const stopTokenIds = new Set([4]);
    expect(sampleMany(sampler({}, { minTokens: 2, stopTokenIds }), ramp, 3)).toEqual([3, 3, 4]);
    const random = sampler({ temperature: 2 }, { minTokens: 100, stopTokenIds });
    expect(sampleMany(random, ramp, 100)).not.toContain(4);
  });

  test("only allowed tokens are chosen, however unlikely", () => {
    expect(sampler({ allowedTokenIds: [1, 2] }).sample(ramp, 0)).toBe(2);
    const drawn = sampleMany(sampler({ temperature: 2, allowedTokenIds: [0, 3] }), ramp, 200);
    expect(new Set(drawn)).toEqual(new Set([0, 3]));
  });

  test("a banned sequence is not completed, and its tokens may be chosen elsewhere", () => {
    expect(sampleMany(sampler({ bannedSequences: [[4]] }), ramp, 3)).toEqual([3, 3, 3]);
    expect(sampleMany(sampler({ bannedSequences: [[4, 4]] }), ramp, 5)).toEqual([4, 3, 4, 3, 4]);
    expect(
      sampleMany(
        sampler({
          bannedSequences: [
            [4, 4, 3],
            [3, 4, 4],
          ],
        }),
        ramp,
        4,
      ),
    ).toEqual([4, 4, 4, 4]);
    expect(
      sampleMany(
        sampler({
          bannedSequences: [
            [4, 4, 4],
            [4, 4, 3],
          ],
        }),
        ramp,
        4,
      ),
    ).toEqual([4, 4, 2, 4]);
  });

  test("the prompt begins no banned sequence", () => {
    expect(sampler({ bannedSequences: [[0, 4]] }, { context: [0] }).sample(ramp, 0)).toBe(4);
  });

  test("masking every token is an error, not a token", () => {
    expect(() => sampler({ allowedTokenIds: [1], bannedSequences: [[1]] }).sample(ramp, 0)).toThrow(/no token is left/);
    const stopTokenIds = new Set([0, 1, 2, 3, 4]);
    expect(() => sampler({}, { minTokens: 1, stopTokenIds }).sample(ramp, 0)).toThrow(/no token is left/);
  });

  test("ids beyond the vocabulary are without effect", () => {
    expect(sampler({ repetitionPenalty: 2 }, { context: [99] }).sample(ramp, 0)).toBe(4);
    expect(sampler({}, { minTokens: 1, stopTokenIds: new Set([99]) }).sample(ramp, 0)).toBe(4);
  });
});

test.each([[Number.NaN], [Number.POSITIVE_INFINITY]])(
  "a row that holds %s is refused, a neighbouring row is not",
  (bad) => {
    const rows = logitRows([
      [0, 1, bad, 0],
      [0, 1, 0, 0],
    ]);
    for (const params of [{}, { temperature: 1 }, { repetitionPenalty: 1.5 }]) {
      expect(() => sampler(params).sample(rows, 0)).toThrow(/not finite/);
      expect(sampler(params).sample(rows, 1)).toBeTypeOf("number");
    }
  },
);

test("tokens at -Infinity are legal and never drawn", () => {
  const rows = logitRows([[0, Number.NEGATIVE_INFINITY, 0]]);
  expect(sampleMany(sampler({ temperature: 2 }), rows, 100)).not.toContain(1);
});

describe("ids past the tokenizer's vocabulary", () => {
  // 500 ids of which 490 are real; padding is likelier than anything real, or as likely as the
  // rest.
  const real = Float32Array.from({ length: 490 }, (_, id) => Math.sin(id) * 3);
  const likely = logitRows([[...real, ...Array(10).fill(9)]]);
  const flat = logitRows([new Float32Array(500)]);

  test.each<[string, Partial<SamplingParams>]>([
    ["greedy", {}],
    ["plain", { temperature: 1 }],
    ["top-k", { temperature: 1, topK: 5 }],
    ["top-p", { temperature: 1, topP: 0.9 }],
    ["min-p", { temperature: 1, minP: 0.01 }],
    ["penalties", { temperature: 1, presencePenalty: 1 }],
    ["a bias towards them", { temperature: 1, logitBias: new Map([[495, 100]]) }],
  ])("are never drawn: %s", (_, params) => {
    for (const rows of [likely, flat]) {
      const drawn = sampleMany(sampler(params, { vocabSize: 490 }), rows, 300);
      expect(Math.max(...drawn)).toBeLessThan(490);
    }
  });

  test("leave the real ones as they would be without padding", () => {
    for (const params of [{}, { temperature: 1, topK: 5 }, { temperature: 1, topP: 0.8 }]) {
      const padded = sampleMany(sampler(params, { vocabSize: 490, seed: 9 }), likely, 100);
      expect(padded).toEqual(sampleMany(sampler(params, { seed: 9 }), logitRows([real]), 100));
    }
  });

  test("change nothing where they are unlikely", () => {
    const unlikely = logitRows([[...real, ...Array(10).fill(-50)]]);
    const params = { temperature: 1 };
    expect(sampleMany(sampler(params, { vocabSize: 490 }), unlikely, 200)).toEqual(
      sampleMany(sampler(params), unlikely, 200),
    );
  });

  test("of equal candidates leave the row's distribution even", () => {
    const counts = new Array(490).fill(0);
    for (const id of sampleMany(sampler({ temperature: 1 }, { vocabSize: 490 }), flat, 49_000)) counts[id]++;
    expect(Math.max(...counts)).toBeLessThan(160);
    expect(Math.min(...counts)).toBeGreaterThan(50);
  });
});
