/**
 * What scripts/gpu-check.sh found, as a section of docs/gpu.md, and what of it is not as it should
 * be.
 */
import { markdownTable } from "../../src/bench/figures.ts";
import { DEVICES, mostTokensPerSecond } from "./roofline.ts";
import type { CallsFigure, Figure, FlatnessFigure, GoldenFigure, NoteFigure, SpeedFigure } from "./sections.ts";
import { GPU_SHAPES, PREFILL_CHUNK, sequencesPerPrefill } from "./shapes.ts";

export interface SectionResult {
  readonly name: string;
  readonly status: "done" | "failed" | "skipped";
  readonly seconds: number;
  readonly reason?: string;
  /** The last lines that a failed one wrote. */
  readonly said?: string;
}

/** In the order of the runs. */
export type ExpectedCalls = readonly Omit<CallsFigure, "kind">[];

export interface CheckResult {
  /** As nvidia-smi has it; empty: there is none. */
  readonly gpu: string;
  readonly at: string;
  readonly node: string;
  readonly isTiny: boolean;
  readonly sections: readonly SectionResult[];
  readonly figures: readonly Figure[];
  /** Of the simulated device. */
  readonly expectedCalls: ExpectedCalls;
}

/** A step's time with the longest past beside that with the shortest. */
const MOST_GROWTH = 1.1;

export function problemsOf(result: CheckResult): string[] {
  const { goldens, calls, flatness, notes } = byKind(result.figures);
  const steps = flatness.map(({ stepMs }) => stepMs);
  return [
    ...result.sections
      .filter(({ status }) => status !== "done")
      .map(({ name, status, reason, said }) => `${name} ${status}: ${reason}${said ? `\n${said}` : ""}`),
    ...goldens
      .filter(({ difference, tolerance }) => difference === null || difference > tolerance)
      .map(
        ({ name, precision, difference, tolerance }) =>
          `${name} in ${precision} is ${difference ?? "no number"} off, at most ${tolerance}`,
      ),
    ...calls.flatMap((figure) => {
      const expected = result.expectedCalls.find(({ run }) => run === figure.run);
      const isSame = expected !== undefined && CALLS.every((name) => expected[name] === figure[name]);
      return isSame
        ? []
        : [`${figure.run}: ${describeCalls(figure)}, simulated ${expected && describeCalls(expected)}`];
    }),
    ...(steps.length > 1 && steps.at(-1)! > MOST_GROWTH * steps[0]!
      ? [
          `a step takes ${steps.at(-1)} ms after ${flatness.at(-1)!.numTokens} tokens, ${steps[0]} after ${flatness[0]!.numTokens}`,
        ]
      : []),
    ...notes.map(({ text }) => text),
  ];
}

const CALLS = ["copies", "bytes", "waits"] as const;

function describeCalls({ copies, bytes, waits }: Omit<CallsFigure, "kind">): string {
  return `${copies} copies of ${bytes} bytes, ${waits} waits`;
}

export function checkSection(result: CheckResult): string {
  const { goldens, calls, speeds, flatness } = byKind(result.figures);
  const problems = problemsOf(result).map((problem) => problem.split("\n")[0]!);
  return [
    `${result.gpu || "No GPU was found"}; ${result.at.slice(0, 10)}, Node ${result.node}${result.isTiny ? ", tiny models" : ""}.`,
    problems.length === 0 ? "Everything is as it should be." : problems.map((problem) => `- ${problem}`).join("\n"),
    speedTable(result, speeds),
    table(
      ["1 sequence, after", "ms a step"],
      flatness.map(({ numTokens, stepMs }) => [`${numTokens.toLocaleString("en")} tokens`, stepMs.toFixed(3)]),
    ),
    table(
      ["goldens", "precision", "off by", "at most"],
      goldens.map(({ name, precision, difference, tolerance }) => [
        name,
        precision,
        difference === null ? "NaN" : difference.toPrecision(2),
        `${tolerance}`,
      ]),
    ),
    table(
      ["ONNX Runtime's calls in", "copies over the bus", "bytes", "waits"],
      calls.map(({ run, copies, bytes, waits }) => [run, `${copies}`, `${bytes}`, `${waits}`]),
    ),
    table(
      ["section", "", "seconds"],
      result.sections.map(({ name, status, seconds }) => [name, status, seconds.toFixed(0)]),
    ),
  ]
    .filter((part) => part !== "")
    .join("\n\n");
}

/** With the part of what the roofline has for this device, if it is one of those. */
function speedTable({ gpu }: CheckResult, speeds: readonly SpeedFigure[]): string {
  const device = Object.entries(DEVICES).find(([name]) => gpu.includes(name))?.[1];
  const rows = speeds.map(({ shape, precision, numSequences, pass, tokensPerSecond }) => {
    const isPrefill = pass === "prefill";
    const most =
      device &&
      mostTokensPerSecond(
        GPU_SHAPES[shape as keyof typeof GPU_SHAPES],
        isPrefill
          ? { numSequences: sequencesPerPrefill(numSequences), numSteps: PREFILL_CHUNK }
          : { numSequences, numSteps: 1 },
        device,
      );
    const share = most === undefined ? "" : `${((tokensPerSecond / most) * 100).toFixed(0)}%`;
    return [shape, precision, pass, `${numSequences}`, Math.round(tokensPerSecond).toLocaleString("en"), share];
  });
  return table(["shape", "precision", "pass", "sequences", "tokens/s", "of the roofline"], rows);
}

function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  return rows.length === 0 ? "" : markdownTable(header, rows);
}

function byKind(figures: readonly Figure[]): {
  readonly goldens: GoldenFigure[];
  readonly calls: CallsFigure[];
  readonly speeds: SpeedFigure[];
  readonly flatness: FlatnessFigure[];
  readonly notes: NoteFigure[];
} {
  return {
    goldens: figures.filter((figure) => figure.kind === "golden"),
    calls: figures.filter((figure) => figure.kind === "calls"),
    speeds: figures.filter((figure) => figure.kind === "speed"),
    flatness: figures.filter((figure) => figure.kind === "flatness"),
    notes: figures.filter((figure) => figure.kind === "note"),
  };
}
