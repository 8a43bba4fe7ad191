/**
 * `bash scripts/gpu-check.sh`: runs every section in a process of its own within a time for all,
 * under compute-sanitizer too where that is there; writes what comes out as JSON and into
 * docs/gpu.md. Ends with 1 if anything failed, or is not as it should be.
 */
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { replaceSection } from "../page.ts";
import { type CheckResult, checkSection, problemsOf, type SectionResult } from "./report.ts";
import { exercise, type Figure, SECTIONS, type Setup } from "./sections.ts";

/** Of one section, and under compute-sanitizer. */
const MOST_SECONDS = 150;
const MOST_SECONDS_SANITIZED = 90;
/** Of what a section says. */
const KEPT_LINES = 12;

const { values } = parseArgs({
  options: {
    ort: { type: "string" },
    kernels: { type: "string" },
    nvcc: { type: "string", default: "nvcc" },
    counter: { type: "string" },
    sanitizer: { type: "string" },
    gpu: { type: "string", default: "" },
    cache: { type: "string", default: ".cache/gpu-check" },
    budget: { type: "string", default: "570" },
    out: { type: "string", default: ".cache/gpu-check/result.json" },
    page: { type: "string", default: "docs/gpu.md" },
    tiny: { type: "boolean", default: false },
    section: { type: "string" },
  },
});
if (values.ort === undefined) throw new Error("--ort is missing: the folder's libonnxruntime.so.1");

const setup: Setup = {
  ort: values.ort,
  kernels: values.kernels,
  nvcc: values.nvcc,
  counter: values.counter,
  cacheDir: values.cache,
  isTiny: values.tiny,
};

if (values.section === undefined) await checkAll();
else {
  const run = values.section === "exercise" ? exercise : SECTIONS[values.section];
  if (run === undefined) throw new Error(`there is no section ${values.section}`);
  await run(setup, (figure) => process.stdout.write(`${JSON.stringify(figure)}\n`));
}

async function checkAll(): Promise<void> {
  const deadlineMs = performance.now() + Number(values.budget) * 1000;
  const sections: SectionResult[] = [];
  const figures: Figure[] = [];
  const expectedCalls = JSON.parse(readFileSync(fileURLToPath(new URL("simulated.json", import.meta.url)), "utf8"));
  const result = (): CheckResult => ({
    gpu: values.gpu,
    at: new Date().toISOString(),
    node: process.version,
    isTiny: setup.isTiny,
    sections,
    figures,
    expectedCalls,
  });
  const run = async (
    name: string,
    command: readonly string[],
    {
      mostSeconds = MOST_SECONDS,
      preload,
    }: { readonly mostSeconds?: number; readonly preload?: string | undefined } = {},
  ) => {
    const section = await runSection(name, command, {
      endMs: Math.min(deadlineMs, performance.now() + mostSeconds * 1000),
      preload,
      onFigure: (figure) => figures.push(figure),
    });
    sections.push(section);
    process.stderr.write(`${name}: ${section.status} in ${section.seconds.toFixed(1)} s ${section.reason ?? ""}\n`);
    await writeFile(values.out, `${JSON.stringify(result(), null, 2)}\n`); // whatever comes after
  };
  const self = [process.execPath, ...process.execArgv, fileURLToPath(import.meta.url), ...process.argv.slice(2)];
  for (const name of Object.keys(SECTIONS)) {
    await run(name, [...self, "--section", name], name === "calls" ? { preload: setup.counter } : {});
    if (name !== "mamba-130m" || !values.sanitizer) continue;
    for (const tool of ["memcheck", "racecheck"]) {
      const sanitizer = [values.sanitizer, "--tool", tool, "--error-exitcode", "9", "--target-processes", "all"];
      await run(tool, [...sanitizer, ...self, "--section", "exercise"], { mostSeconds: MOST_SECONDS_SANITIZED });
    }
  }
  const markdown = checkSection(result());
  process.stdout.write(`${markdown}\n`);
  const page = await readFile(values.page, "utf8");
  await writeFile(values.page, replaceSection(page, "gpu-check", markdown, "bash scripts/gpu-check.sh"));
  const problems = problemsOf(result());
  for (const problem of problems) process.stderr.write(`${problem}\n`);
  process.exitCode = problems.length > 0 ? 1 : 0;
}

interface RunOptions {
  readonly endMs: number;
  readonly preload: string | undefined;
  readonly onFigure: (figure: Figure) => void;
}

/** Never throws: what goes wrong is its status. */
async function runSection(
  name: string,
  [command, ...args]: readonly string[],
  { endMs, preload, onFigure }: RunOptions,
): Promise<SectionResult> {
  const startMs = performance.now();
  const leftMs = endMs - startMs;
  if (leftMs < 5000) return { name, status: "skipped", seconds: 0, reason: "no time was left" };
  const env = preload === undefined ? process.env : { ...process.env, LD_PRELOAD: preload };
  // A group of its own: compute-sanitizer has a child, which would live on.
  const child = spawn(command!, args, { env, stdio: ["ignore", "pipe", "pipe"], detached: true });
  const end = () => void (child.pid && child.exitCode === null && process.kill(-child.pid, "SIGKILL"));
  let isTooLate = false;
  const timer = setTimeout(() => {
    isTooLate = true;
    end();
  }, leftMs);
  process.once("SIGINT", end);
  const lastLines: string[] = [];
  const keep = (line: string) => {
    lastLines.push(line);
    if (lastLines.length > KEPT_LINES) lastLines.shift();
  };
  const reading = [child.stdout, child.stderr].map(async (stream) => {
    for await (const line of createInterface({ input: stream })) {
      const figure = stream === child.stdout ? figureOf(line) : undefined;
      if (figure === undefined) keep(line);
      else onFigure(figure);
    }
  });
  const reason = await new Promise<string | undefined>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("close", (code, signal) => {
      if (isTooLate) resolve(`took longer than ${Math.round(leftMs / 1000)} s`);
      else resolve(code === 0 ? undefined : `ended with ${signal ?? code}`);
    });
  });
  clearTimeout(timer);
  process.off("SIGINT", end);
  await Promise.all(reading);
  const seconds = (performance.now() - startMs) / 1000;
  const said = lastLines.join("\n");
  if (reason !== undefined) return { name, status: "failed", seconds, reason, ...(said && { said }) };
  return { name, status: "done", seconds };
}

function figureOf(line: string): Figure | undefined {
  if (!line.startsWith('{"kind":')) return undefined; // of the sanitizer, or ONNX Runtime
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
