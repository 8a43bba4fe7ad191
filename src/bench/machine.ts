/**
 * Where and when a figure was measured, without which it means nothing, and how busy the machine
 * was just before: on a machine that others use, only ratios within a run mean anything.
 */
import { readFileSync } from "node:fs";
import { type CpuInfo, cpus, type as osName, release, totalmem } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";

export interface Machine {
  /** ISO 8601, UTC. */
  readonly date: string;
  readonly cpu: string;
  /** Logical processors. */
  readonly numCpus: number;
  /** Vector instructions that matter here, e.g. `AVX-512 VNNI`. */
  readonly instructions: string;
  readonly memoryGiB: number;
  readonly os: string;
  /** That every program was given. */
  readonly threads: number;
  /** Of every program that was measured, by name. */
  readonly versions: Readonly<Record<string, string>>;
  /** Share of the processors that others used just before, 0 to 1. */
  readonly busyShare: number;
}

/** Above this the figures are preliminary. */
const QUIET_SHARE = 0.05;
const SAMPLE_MS = 2000;

export async function describeMachine(options: Pick<Machine, "threads" | "versions">): Promise<Machine> {
  const before = cpus();
  await sleep(SAMPLE_MS);
  return {
    date: new Date().toISOString(),
    cpu: before[0]?.model.trim() ?? "unknown",
    numCpus: before.length,
    instructions: instructionsOf(readCpuFlags()),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    os: `${osName()} ${release()}`,
    threads: options.threads,
    versions: { Node: process.version, ...options.versions },
    busyShare: busyShare(before, cpus()),
  };
}

/** One line; says whether the figures are preliminary. */
export function formatMachine(machine: Machine): string {
  const { cpu, numCpus, instructions, memoryGiB, os, threads, versions, date, busyShare } = machine;
  const facts = [
    `${cpu}, ${numCpus} logical processors${instructions === "" ? "" : ` (${instructions})`}, ${memoryGiB} GiB, ${os}`,
    `${threads} threads each`,
    Object.entries(versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(", "),
    `${date.slice(0, 16).replace("T", " ")} UTC`,
  ];
  if (busyShare > QUIET_SHARE) facts.push(`preliminary: others used ${Math.round(busyShare * 100)}% of the processors`);
  return facts.join("; ");
}

/** Share of the time between two readings that was not idle. */
export function busyShare(before: readonly CpuInfo[], after: readonly CpuInfo[]): number {
  let total = 0;
  let idle = 0;
  for (const [i, { times }] of after.entries()) {
    const earlier = before[i]!.times;
    total += sum(times) - sum(earlier);
    idle += times.idle - earlier.idle;
  }
  return total === 0 ? 0 : 1 - idle / total;
}

function sum(times: CpuInfo["times"]): number {
  return times.user + times.nice + times.sys + times.idle + times.irq;
}

/** Flags of /proc/cpuinfo, the best of each kind first. */
const INSTRUCTIONS: readonly Readonly<Record<string, string>>[] = [
  { avx512f: "AVX-512", avx2: "AVX2", avx: "AVX", sve: "SVE", asimd: "NEON" },
  { avx512_vnni: "VNNI", avx_vnni: "VNNI", i8mm: "I8MM", asimddp: "DotProd" },
  { amx_int8: "AMX" },
];

export function instructionsOf(flags: ReadonlySet<string>): string {
  return INSTRUCTIONS.flatMap((kind) => Object.entries(kind).find(([flag]) => flags.has(flag))?.[1] ?? []).join(" ");
}

/** Empty where there is no /proc. */
function readCpuFlags(): ReadonlySet<string> {
  try {
    const line = /^(?:flags|Features)\s*:(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1] ?? "";
    return new Set(line.trim().split(/\s+/));
  } catch {
    return new Set();
  }
}
