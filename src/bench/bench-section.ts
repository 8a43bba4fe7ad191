/** `densemamba bench` as a section of docs/performance.md. */
import type { BenchResult } from "./bench.ts";
import { formatMachine } from "./machine.ts";
import type { Section } from "./page/sections.ts";
import { formatTable } from "./report.ts";

export function benchSection(result: BenchResult): Section {
  const tables = Object.entries(result.suites).map(([suite, figures]) => formatTable(suite, figures));
  return {
    name: "bench",
    markdown: [`${formatMachine(result.machine)}.`, ...tables].join("\n\n"),
    files: { "result.json": `${JSON.stringify(result, null, 1)}\n` },
  };
}
