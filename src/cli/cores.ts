/**
 * How many threads the runtime should have: physical cores, but no more than this process may use. ONNX Runtime counts the
 * machine's cores; in a container with two CPUs of a large host that makes it many times slower.
 */
import { availableParallelism } from "node:os";
import { readText } from "./read-text.ts";

export interface MachineFacts {
  /** Logical processors this process may be scheduled on. */
  readonly numLogical: number;
  /** Text of a file, undefined where there is none. */
  readonly read: (path: string) => string | undefined;
}

/** At least 1. */
export function usableCores(facts: MachineFacts = thisMachine()): number {
  const physical = physicalCores(facts.read("/proc/cpuinfo")) ?? facts.numLogical;
  return Math.max(1, Math.min(physical, facts.numLogical, Math.floor(cgroupCpus(facts) ?? Number.POSITIVE_INFINITY)));
}

/** Hyper-threads of one core share its arithmetic units: they count as one. */
function physicalCores(cpuinfo: string | undefined): number | undefined {
  const cores = new Set<string>();
  for (const block of cpuinfo?.split("\n\n") ?? []) {
    const socket = /^physical id\s*: (\d+)/m.exec(block)?.[1];
    const core = /^core id\s*: (\d+)/m.exec(block)?.[1];
    if (core !== undefined) cores.add(`${socket} ${core}`);
  }
  return cores.size > 0 ? cores.size : undefined;
}

/** CPUs that the container's quota amounts to, cgroup version 2 or 1; undefined for no quota. */
function cgroupCpus({ read }: MachineFacts): number | undefined {
  const [quota, period] = (
    read("/sys/fs/cgroup/cpu.max") ??
    `${read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")} ${read("/sys/fs/cgroup/cpu/cpu.cfs_period_us")}`
  )
    .trim()
    .split(/\s+/)
    .map(Number);
  // No quota reads `max` (NaN) or -1.
  return quota && period && quota > 0 ? quota / period : undefined;
}

function thisMachine(): MachineFacts {
  return { numLogical: availableParallelism(), read: readText };
}
