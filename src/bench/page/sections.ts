/**
 * docs/performance.md is prose with sections that the bench commands write: each between two comments that carry its
 * name. Beside the page lie the charts, and the numbers as JSON.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { DenseMambaError } from "../../errors.ts";

export interface Section {
  /** Of the section, and the prefix of its files. */
  readonly name: string;
  readonly markdown: string;
  /** File name without the prefix → contents. */
  readonly files: Readonly<Record<string, string>>;
}

/** @throws `invalid_value` if the page is not there or has no such section */
export async function writeSection(pagePath: string, { name, markdown, files }: Section): Promise<void> {
  const page = await readFile(pagePath, "utf8").catch((cause: unknown) => {
    throw new DenseMambaError("invalid_value", `--write needs ${pagePath}: run it in a checkout`, { cause });
  });
  const filled = replaceSection(page, name, markdown);
  if (filled === undefined) {
    throw new DenseMambaError("invalid_value", `${pagePath} has no section ${begin(name)} … ${end(name)}`);
  }
  const folder = assetFolder(pagePath);
  await mkdir(folder, { recursive: true });
  for (const [fileName, text] of Object.entries(files)) await writeFile(join(folder, `${name}-${fileName}`), text);
  await writeFile(pagePath, filled);
}

/** undefined if the page has no such section. */
export function replaceSection(page: string, name: string, markdown: string): string | undefined {
  const from = page.indexOf(begin(name));
  const to = page.indexOf(end(name), from);
  if (from === -1 || to === -1) return undefined;
  return `${page.slice(0, from + begin(name).length)}\n\n${markdown.trim()}\n\n${page.slice(to)}`;
}

/** `docs/performance.md` → `docs/performance/`, which links in the section begin with. */
function assetFolder(pagePath: string): string {
  return join(dirname(pagePath), basename(pagePath, ".md"));
}

function begin(name: string): string {
  return `<!-- begin ${name}: written by the bench -->`;
}

function end(name: string): string {
  return `<!-- end ${name} -->`;
}
