/**
 * What this process may use of the machine: CPU cores for the runtime's threads, and memory for
 * stored states. A container sees its host's cores and memory, but its control group (cgroup,
 * version 2 or 1) allows less.
 */
import { availableParallelism, totalmem } from "node:os";
import { readTextIfAny } from "../config/process.ts";
import { AUTO_PREFIX_BYTES, AUTO_SESSION_BYTES, type Config } from "../config/schema.ts";
import { DenseMambaError } from "../errors.ts";
import type { Manifest } from "../model/artifact.ts";
import { stateBytes } from "../model/state.ts";

export interface MachineFacts {
  /** Logical processors that this process may be scheduled on. */
  readonly numLogical: number;
  readonly totalBytes: number;
  /** The text of a file; undefined if it cannot be read. */
  readonly read: (path: string) => string | undefined;
}

/** The machine that this process runs on. */
function thisMachine(): MachineFacts {
  return { numLogical: availableParallelism(), totalBytes: totalmem(), read: readTextIfAny };
}

/** The runtime's threads: as configured, or one per usable core. */
export function numThreads({ threads }: Pick<Config, "threads">): number {
  return threads === 0 ? usableCores() : threads;
}

/**
 * Physical cores, but no more than this process may use; at least 1. ONNX Runtime itself would
 * count the machine's cores: in a container with two CPUs of a large host that makes it many times
 * slower.
 */
export function usableCores(machine: Omit<MachineFacts, "totalBytes"> = thisMachine()): number {
  const { numLogical, read } = machine;
  const physical = physicalCores(read("/proc/cpuinfo")) ?? numLogical;
  return Math.max(1, Math.min(physical, numLogical, Math.floor(cgroupCpus(machine) ?? Number.POSITIVE_INFINITY)));
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

/** @returns the CPUs that the cgroup's quota amounts to; undefined without a quota */
function cgroupCpus({ read }: Pick<MachineFacts, "read">): number | undefined {
  const [quota, period] = (
    read("/sys/fs/cgroup/cpu.max") ??
    `${read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")} ${read("/sys/fs/cgroup/cpu/cpu.cfs_period_us")}`
  )
    .trim()
    .split(/\s+/)
    .map(Number);
  // Without a quota it reads `max` (NaN) or -1.
  return quota && period && quota > 0 ? quota / period : undefined;
}

/** The least of the machine's memory and the limits of this process's cgroups. */
export function memoryLimit(machine: Omit<MachineFacts, "numLogical"> = thisMachine()): number {
  const { read, totalBytes } = machine;
  const files = (read("/proc/self/cgroup") ?? "").split("\n").flatMap((line) => {
    const [, controllers, group] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    if (controllers === "") return withParents(group!).flatMap((at) => [`${at}/memory.max`, `${at}/memory.high`]);
    if (controllers?.split(",").includes("memory") !== true) return [];
    return withParents(group!).map((at) => `/memory${at}/memory.limit_in_bytes`);
  });
  // A container may not see its group's path: there the group is the root.
  const all = new Set([...files, "/memory.max", "/memory.high", "/memory/memory.limit_in_bytes"]);
  // Without a limit it reads `max`, or more than any machine has.
  const limits = [...all].map((file) => Number.parseInt(read(`/sys/fs/cgroup${file}`) ?? "", 10));
  return Math.min(totalBytes, ...limits.filter((bytes) => bytes > 0));
}

/** `/a/b` → `/a/b`, `/a`, and the empty root. */
function withParents(group: string): string[] {
  const names = group.split("/").filter((name) => name !== "");
  return [...names, ""].map((_, drop) => ["", ...names.slice(0, names.length - drop)].join("/"));
}

const MIB = 2 ** 20;
/**
 * Node's heap, the program, the runtime's libraries, the tokenizer processes, and what requests
 * bring. Measured: 140 MiB idle and 170 MiB under 16 streams, without states and model.
 */
const PROGRAM_BYTES = 256 * MIB;
/** With the least that requests bring. */
const MIN_PROGRAM_BYTES = 170 * MIB;
/** Weights, the runtime's copies of them in its own layout, and activations. */
const MODEL_FACTOR = 1.25;
/** Of the rest. What remains is for states in transit, e.g. being read, written or suspended. */
const SESSION_SHARE = 1 / 2;
const PREFIX_SHARE = 1 / 8;
const MIN_SESSION_BYTES = 16 * MIB;
const MIN_PREFIX_BYTES = 4 * MIB;

export interface MemoryFacts {
  /** Of this process. */
  readonly limitBytes: number;
  /** Of the artifact. */
  readonly modelBytes: number;
  /** `slotBytesOf` */
  readonly slotBytes: number;
}

/** What several models may take together. */
export function autoModelsBytes(limitBytes: number): number {
  return Math.floor(Math.max(0, limitBytes - PROGRAM_BYTES) / 2);
}

/** What one of several takes while it is loaded, wherever it runs. */
export function loadedBytesOf({ files, state }: Pick<Manifest, "files" | "state">, numSlots: number): number {
  return Math.ceil(MODEL_FACTOR * bytesOf(files) + numSlots * stateBytes(state));
}

export function bytesOf(files: Manifest["files"]): number {
  return files.reduce((sum, { bytes }) => sum + bytes, 0);
}

/** Of the states in all slots, as far as they are in this machine's memory and not on a device. */
export function slotBytesOf(
  { device, manifest }: { readonly device: "cpu" | "cuda"; readonly manifest: Pick<Manifest, "state"> },
  numSlots: number,
): number {
  return device === "cuda" ? 0 : numSlots * stateBytes(manifest.state);
}

/**
 * To be called before the model is loaded: a process that takes more than its limit is killed
 * without a word.
 * @throws `invalid_config` with what is needed
 */
export function requireMemory(config: Config, { limitBytes, modelBytes, slotBytes }: MemoryFacts): void {
  const atLeast = (given: number | "auto", min: number) => (given === "auto" ? min : Math.min(given, min));
  const parts = {
    "for the program": MIN_PROGRAM_BYTES,
    "for the model": MODEL_FACTOR * modelBytes,
    [`for ${config.maxBatch} slots (--max-batch)`]: slotBytes,
    "for stored states":
      atLeast(config.sessionBytes, MIN_SESSION_BYTES) + atLeast(config.prefixBytes, MIN_PREFIX_BYTES),
  };
  const neededBytes = Object.values(parts).reduce((sum, bytes) => sum + bytes, 0);
  if (neededBytes <= limitBytes) return;
  const [limit, needed] = [Math.floor(limitBytes / MIB), Math.ceil(neededBytes / MIB)];
  const listed = Object.entries(parts).map(([what, bytes]) => `${Math.ceil(bytes / MIB)} MiB ${what}`);
  throw new DenseMambaError(
    "invalid_config",
    `this process may use ${limit} MiB of memory and needs at least ${needed} MiB: ${listed.join(", ")}`,
  );
}

/** A config without `auto` sizes. */
export type SizedConfig = Config & { readonly sessionBytes: number; readonly prefixBytes: number };

/** Replaces `auto` with the usual size, or with less if memory is short. */
export function withinMemory(config: Config, { limitBytes, modelBytes, slotBytes }: MemoryFacts): SizedConfig {
  const freeBytes = limitBytes - PROGRAM_BYTES - MODEL_FACTOR * modelBytes - slotBytes;
  const size = (given: number | "auto", usual: number, share: number, min: number) =>
    given === "auto" ? Math.min(usual, Math.max(min, Math.floor(freeBytes * share))) : given;
  return {
    ...config,
    sessionBytes: size(config.sessionBytes, AUTO_SESSION_BYTES, SESSION_SHARE, MIN_SESSION_BYTES),
    prefixBytes: size(config.prefixBytes, AUTO_PREFIX_BYTES, PREFIX_SHARE, MIN_PREFIX_BYTES),
  };
}
