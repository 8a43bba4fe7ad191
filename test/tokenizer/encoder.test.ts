import { setImmediate } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { loadTokenizer } from "../../src/tokenizer/load.ts";
import { byteFallbackJson, byteLevelJson, type TokenizerJson, writeTokenizer } from "../helpers/tiny-tokenizers.ts";

const TALES = "models/densemamba-tales-4m";
const PLAIN = { addSpecialTokens: false };
const WORDS = "once upon a time, ";

const open = async (json: TokenizerJson) => (await loadTokenizer(await writeTokenizer({ json })))!;
const splitBy = (Regex: string): TokenizerJson => ({
  ...byteFallbackJson(),
  pre_tokenizer: { type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false },
});

describe("a file that the library does not survive is refused", () => {
  test.each([
    ["an expression that backtracks without end", splitBy("(a+)+$"), /SIGABRT.*retry-limit/],
    [
      "one of a normalizer",
      { ...byteFallbackJson(), normalizer: { type: "Replace", pattern: { Regex: "(b|bb)+$" }, content: "" } },
      /SIGABRT.*retry-limit/,
    ],
    [
      "an empty pattern to replace",
      { ...byteLevelJson(), normalizer: { type: "Replace", pattern: { String: "" }, content: "x" } },
      /SIGABRT.*index out of bounds/,
    ],
    ["a length of nothing", { ...byteFallbackJson(), pre_tokenizer: { type: "FixedLength", length: 0 } }, /SIGABRT/],
    [
      "a table that is none",
      { ...byteFallbackJson(), normalizer: { type: "Precompiled", precompiled_charsmap: "" } },
      /SIGABRT.*Precompiled/,
    ],
  ])("%s", async (_, json, said) => {
    await expect(open(json)).rejects.toMatchObject({
      code: "invalid_checkpoint",
      message: expect.stringMatching(new RegExp(`/tokenizer\\.json: .*${said.source}`)),
    });
  });
});

test("a text that the library does not survive fails alone", async () => {
  const tokenizer = await open(splitBy("(\\p{Greek}+)+$"));
  const greek = `${"α".repeat(40)}!`;
  const [failed, ...others] = await Promise.allSettled(
    [greek, "the", "hello"].map((text) => tokenizer.encode(text, PLAIN)),
  );
  expect(failed).toMatchObject({ status: "rejected", reason: { code: "invalid_checkpoint" } });
  expect(others.map(({ status }) => status)).toEqual(["fulfilled", "fulfilled"]);
  expect(await tokenizer.encode("the", PLAIN)).toEqual((others[0] as PromiseFulfilledResult<number[]>).value);
});

test("a text without ids, where the tokenizer knows no unknown token, is a bad value", async () => {
  const { added_tokens: _, ...json } = byteFallbackJson();
  const tokenizer = await open({
    ...json,
    normalizer: null,
    post_processor: null,
    model: { type: "WordLevel", vocab: { the: 0, a: 1 }, unk_token: "[UNK]" },
  });
  expect(await tokenizer.encode("the", PLAIN)).toEqual([0]);
  await expect(tokenizer.encode("zzz", PLAIN)).rejects.toMatchObject({ code: "invalid_value" });
});

test("encoding stops soon after the limit", async () => {
  const tokenizer = (await loadTokenizer(TALES))!;
  const text = WORDS.repeat(500_000);
  const ids = await tokenizer.encode(text, { ...PLAIN, maxTokens: 1000 });
  expect(ids.length).toBeGreaterThan(1000);
  expect(ids.length).toBeLessThan(20_000);
  expect(ids.slice(0, 100)).toEqual((await tokenizer.encode(text.slice(0, 1000), PLAIN)).slice(0, 100));
});

test("encoding ends at once when it is aborted, and a short text does not wait for long ones", async () => {
  const tokenizer = (await loadTokenizer(TALES))!;
  const abort = new AbortController();
  const cuttable = WORDS.repeat(500_000);
  const whole = "x".repeat(500_000);
  let numSettled = 0;
  const long = [cuttable, cuttable, whole, whole].map((text) =>
    tokenizer.encode(text, { ...PLAIN, signal: abort.signal }).finally(() => numSettled++),
  );
  const outcome = Promise.allSettled(long);
  await tokenizer.encode("the", PLAIN);
  expect(numSettled).toBe(0);
  abort.abort();
  const begin = performance.now();
  expect((await outcome).map((settled) => settled.status === "rejected" && settled.reason.code)).toEqual(
    Array(4).fill("aborted"),
  );
  expect(performance.now() - begin).toBeLessThan(100);
  // Whatever was killed for it is there again.
  expect(await tokenizer.encode(whole.slice(0, 100_000), PLAIN)).not.toHaveLength(0);
});

test("a text that cannot be cut is bounded", async () => {
  const tokenizer = (await loadTokenizer(TALES))!;
  const error = { code: "invalid_value", message: expect.stringContaining("at most 524288") };
  await expect(tokenizer.encode("x".repeat(524_289), PLAIN)).rejects.toMatchObject(error);
  // In bytes: the pieces of a byte-level vocabulary are bytes, and each may be a token.
  await expect(tokenizer.encode("語".repeat(174_763), PLAIN)).rejects.toMatchObject(error);
  // The limit is reached before the bad place.
  expect(
    await tokenizer.encode(WORDS.repeat(2000) + "x".repeat(600_000), { ...PLAIN, maxTokens: 10 }),
  ).not.toHaveLength(0);
});

test("encoding a long text takes little memory and does not block the event loop", async () => {
  const tokenizer = (await loadTokenizer(TALES))!;
  const text = WORDS.repeat(Math.ceil(2 ** 22 / WORDS.length));
  let isDone = false;
  let longestMs = 0;
  // The processor's time, not the clock's: other programs' work is no stall of ours.
  const watch = (async () => {
    while (!isDone) {
      const begin = process.cpuUsage();
      await setImmediate();
      const { user, system } = process.cpuUsage(begin);
      longestMs = Math.max(longestMs, (user + system) / 1000);
    }
  })();
  const before = process.memoryUsage().rss;
  const ids = await tokenizer.encode(text, PLAIN);
  isDone = true;
  await watch;
  expect(ids.length).toBeGreaterThan(1_000_000);
  expect(longestMs).toBeLessThan(50);
  expect(process.memoryUsage().rss - before).toBeLessThan(100 * 2 ** 20);
});

test("byte-level text in parts keeps characters whole", async () => {
  const tokenizer = await open(byteLevelJson());
  const text = "é€😀中 a\n".repeat(5000);
  const ids = await tokenizer.encode(text, PLAIN);
  expect(tokenizer.decode(ids, { skipSpecialTokens: false })).toBe(text);
});
