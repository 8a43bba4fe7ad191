/** The program's own version. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { packageRoot } from "../config/schema.ts";

export function programVersion(): string {
  return JSON.parse(readFileSync(path.join(packageRoot, "package.json"), "utf8")).version;
}
