/**
 * Records what jinja2 makes of templates at random: `npx tsx test/tokenizer/jinja/record.ts`, with
 * TZ=UTC.
 */
import { writeFileSync } from "node:fs";
import { renderTheirs } from "./compare.ts";
import { pairs } from "./grammar.ts";
import { digestOf, RECORDED_COUNT, RECORDED_SEED, RECORDS } from "./records.ts";

const given = pairs(RECORDED_SEED, RECORDED_COUNT);
void renderTheirs(given, "python3").then((renderings) => {
  writeFileSync(RECORDS, `${JSON.stringify({ pairs: digestOf(given), renderings }, null, 1)}\n`);
});
