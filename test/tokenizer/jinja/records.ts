/** What jinja2 said once, for where there is no Python. */
import { createHash } from "node:crypto";
import path from "node:path";
import type { Rendering } from "./compare.ts";
import type { Pair } from "./grammar.ts";

export const RECORDS = path.join(import.meta.dirname, "../../fixtures/jinja2-renderings.json");
export const RECORDED_SEED = 1;
export const RECORDED_COUNT = 500;

export interface Records {
  /** A digest of the templates and chats that these are of. */
  readonly pairs: string;
  readonly renderings: readonly Rendering[];
}

export function digestOf(pairs: readonly Pair[]): string {
  return createHash("sha256").update(JSON.stringify(pairs)).digest("hex");
}
