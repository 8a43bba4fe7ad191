/**
 * Random templates and chats: rendered as jinja2 does, or refused. Also compared with recorded
 * output for machines without jinja2: `npx tsx test/tokenizer/jinja/record.ts` records it.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { compare, renderTheirs } from "./compare.ts";
import { pairs } from "./grammar.ts";
import { digestOf, RECORDED_COUNT, RECORDED_SEED, RECORDS, type Records } from "./records.ts";

/** The answers that are recorded name hours. */
process.env.TZ = "UTC";

const NUM_PAIRS = 2000;

const hasJinja = (() => {
  try {
    const version = "import jinja2; print(jinja2.__version__)";
    return execFileSync("python3", ["-c", version], { stdio: "pipe" }).toString().startsWith("3.1.");
  } catch {
    return false;
  }
})();

test.skipIf(!hasJinja)("no template renders differently from jinja2", async () => {
  const given = pairs(Math.floor(Math.random() * 1e6), NUM_PAIRS);
  const { different, numEqual, refusedByUs } = compare(given, await renderTheirs(given, "python3"));
  expect(different).toEqual([]);
  // Most make sense, and hardly any that does is refused.
  expect(numEqual).toBeGreaterThan(NUM_PAIRS * 0.5);
  expect(refusedByUs.length).toBeLessThan(NUM_PAIRS * 0.03);
});

test("no template renders differently from jinja2's recorded output", () => {
  const given = pairs(RECORDED_SEED, RECORDED_COUNT);
  const records = JSON.parse(readFileSync(RECORDS, "utf8")) as Records;
  expect(records.pairs, "the grammar has changed since: record again").toBe(digestOf(given));
  const { different, numEqual } = compare(given, records.renderings);
  expect(different).toEqual([]);
  expect(numEqual).toBeGreaterThan(RECORDED_COUNT * 0.5);
});
