/** Random models, and what the bench commands accept. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { serveFlags } from "../../src/bench/config.ts";
import { BENCH_SHAPES, numberedPieces, unreadBytes, writeNumberedTokenizer } from "../../src/bench/random-model.ts";
import { bytesReadByStep } from "../../src/bench/runner.ts";
import { parseRates, pickShape } from "../../src/cli/bench.ts";
import { loadTokenizer } from "../../src/tokenizer/load.ts";

describe("the vocabulary of a random model", () => {
  it("has a word of its own for every token, which streams as soon as the token is there", async () => {
    const dir = await mkdtemp(path.join(tmpdir(), "numbered-"));
    try {
      await writeNumberedTokenizer(dir, 300);
      const tokenizer = (await loadTokenizer(dir))!;
      expect(tokenizer.vocabSize).toBe(300);
      const stream = tokenizer.stream({ skipSpecialTokens: true });
      expect([5, 17, 299].map((id) => stream.push(id))).toEqual([" 5", " 17", " 299"]);
    } finally {
      await rm(dir, { recursive: true });
    }
  });

  it("keeps the first ids special", () => {
    expect(numberedPieces(5)).toEqual(["<unk>", "<s>", "</s>", "▁3", "▁4"]);
  });
});

describe("the shapes", () => {
  it("that llama.cpp can run have no dense links, and are otherwise those of the models they stand for", () => {
    expect(BENCH_SHAPES["mamba-130m"].denseLayers).toBe(0);
    expect(BENCH_SHAPES["mamba-4m"]).toEqual({ ...BENCH_SHAPES["densemamba-4m"], denseLayers: 0 });
  });

  it("limit a step by the weights, not by the other files", () => {
    const files = [
      { name: "model.onnx", bytes: 10, sha256: "" },
      { name: "weights.bin", bytes: 1000, sha256: "" },
    ];
    expect(bytesReadByStep({ files, state: [] })).toBe(1000);
  });

  it("leave the embedding where the head has a table of its own", () => {
    expect(unreadBytes("mamba2-130m", "int8")).toBe(0);
    expect(unreadBytes("rwkv7-0.4b", "int4")).toBe(65_536 * 1024);
    expect(unreadBytes("rwkv7-0.4b", "f32")).toBe(4 * 65_536 * 1024);
  });
});

describe("the bench commands", () => {
  it("take rates that are numbers above 0, and name what they refuse", () => {
    expect(parseRates("0.5,2, 40")).toEqual([0.5, 2, 40]);
    for (const text of ["", "1,", "0", "-1", "x", "1e9"]) expect(() => parseRates(text)).toThrow(`; ${text} given`);
  });

  it("take shapes that exist", () => {
    expect(pickShape("mamba-4m")).toBe("mamba-4m");
    expect(() => pickShape("mamba-5m")).toThrow(/--shape must be one of mamba-130m, .*, mamba-5m given/);
  });

  it("start servers with the same operators that the suites run", () => {
    const config = {
      runtime: "native",
      threads: 2,
      cacheDir: "/c",
      prefillChunk: 64,
      prefillStall: 1.5,
      kernels: undefined,
      statePrecision: "f16",
    } as const;
    expect(serveFlags(config).join(" ")).toBe(
      "--runtime native --threads 2 --cache-dir /c --state-precision f16 --prefill-chunk 64 --prefill-stall 1.5 --kernels off",
    );
  });
});
