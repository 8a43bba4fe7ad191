/**
 * `densemamba bench` as sections of docs/performance.md: one for what is measured in minutes, and one each for the suites
 * that are run by themselves, so that none of them takes another's place.
 */
import type { BenchResult } from "./bench.ts";
import { formatMachine } from "./machine.ts";
import type { Section } from "./page/sections.ts";
import { type Figure, formatTable } from "./report.ts";

/** Suites that have a section of their own. */
const OWN_SECTIONS: readonly string[] = ["million", "length", "state", "soak"];
/** What every section opens with. */
const PHYSICS = "machine";

export function benchSections(result: BenchResult): Section[] {
  const sections = new Map<string, Record<string, readonly Figure[]>>();
  for (const [suite, figures] of Object.entries(result.suites)) {
    if (suite === PHYSICS) continue;
    const name = OWN_SECTIONS.includes(suite) ? suite : "bench";
    sections.set(name, { ...(sections.get(name) ?? physicsOf(result)), [suite]: figures });
  }
  return [...sections].map(([name, suites]) => {
    const tables = Object.entries(suites).map(([suite, figures]) => formatTable(suite, figures));
    return {
      name,
      markdown: [`${formatMachine(result.machine)}.`, ...tables].join("\n\n"),
      files: { "result.json": `${JSON.stringify({ machine: result.machine, suites }, null, 1)}\n` },
    };
  });
}

function physicsOf({ suites }: BenchResult): Record<string, readonly Figure[]> {
  const figures = suites[PHYSICS];
  return figures === undefined ? {} : { [PHYSICS]: figures };
}
