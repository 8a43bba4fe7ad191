/** Our rendering of templates beside jinja2's. */
import { spawn } from "node:child_process";
import { text } from "node:stream/consumers";
import { Template } from "../../../src/tokenizer/jinja/template.ts";
import type { Pair } from "./grammar.ts";

export type Rendering = { readonly text: string } | { readonly error: string };

export interface Comparison {
  readonly numEqual: number;
  readonly numRefusedByBoth: number;
  /** With our reasons. */
  readonly refusedByUs: readonly string[];
  readonly different: readonly { readonly pair: Pair; readonly ours: Rendering; readonly theirs: Rendering }[];
}

export function renderOurs({ template, variables, nowMs }: Pair): Rendering {
  try {
    const limits = { refill: () => 1_000_000, maxLength: 1_000_000 };
    return { text: Template.parse(template).render(variables, { ...limits, nowMs }) };
  } catch (error) {
    // What the template is not to blame for is our bug, and no refusal.
    if ((error as Error).name !== "TemplateError") return { text: `BUG: ${(error as Error).stack}` };
    return { error: (error as Error).message };
  }
}

/** @param python one that has jinja2 */
export async function renderTheirs(given: readonly Pair[], python: string): Promise<Rendering[]> {
  const child = spawn(python, [`${import.meta.dirname}/oracle.py`], { stdio: ["pipe", "pipe", "inherit"] });
  const output = text(child.stdout);
  child.stdin.end(given.map((pair) => `${JSON.stringify(pair)}\n`).join(""));
  const lines = (await output).split("\n").slice(0, -1);
  return lines.map((line) => JSON.parse(line) as Rendering);
}

export function compare(given: readonly Pair[], theirs: readonly Rendering[]): Comparison {
  let [numEqual, numRefusedByBoth] = [0, 0];
  const refusedByUs: string[] = [];
  const different: Comparison["different"][number][] = [];
  given.forEach((pair, i) => {
    const [ours, other] = [renderOurs(pair), theirs[i]!];
    if ("text" in ours && "text" in other && ours.text === other.text) numEqual++;
    else if ("text" in ours) different.push({ pair, ours, theirs: other });
    else if ("text" in other) refusedByUs.push(ours.error);
    else numRefusedByBoth++;
  });
  return { numEqual, numRefusedByBoth, refusedByUs, different };
}
