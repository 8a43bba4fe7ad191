/** Where the bench commands' `--write` goes: docs/performance.md of the checkout that they run in. */
import path from "node:path";
import { type Section, writeSection } from "../bench/page/sections.ts";
import { packageRoot } from "../config/schema.ts";

/** @throws `invalid_value` in an installed package, which has no documents. */
export function writePage(section: Section): Promise<void> {
  return writeSection(path.join(packageRoot, "docs", "performance.md"), section);
}
