/**
 * How much memory this process may use, and what of it goes to kept states where the configuration does not say: a container's
 * limit kills whoever goes beyond it, with all sessions.
 */
import { totalmem } from "node:os";
import type { Config } from "../config.ts";
import type { MachineFacts } from "./cores.ts";
import { readText } from "./read-text.ts";

const MIB = 2 ** 20;
const DEFAULT_SESSION_BYTES = 1024 * MIB;
const DEFAULT_PREFIX_BYTES = 256 * MIB;
/**
 * Node's heap, the program, the runtime's libraries, the processes that encode texts, and what requests bring: measured at
 * 140 MiB idle and 170 MiB under 16 streams, beside states and model.
 */
const PROGRAM_BYTES = 256 * MIB;
/** Weights, the runtime's copies of them in its own layout, and activations. */
const MODEL_FACTOR = 1.25;
/** Shares of what is left. The rest is for states in transit: being read, written, suspended, or not yet collected. */
const SESSION_SHARE = 1 / 2;
const PREFIX_SHARE = 1 / 8;
/** Minimums, however little memory there is. */
const LEAST_SESSION_BYTES = 16 * MIB;
const LEAST_PREFIX_BYTES = 4 * MIB;

export interface MemoryFacts {
  /** Of this process. */
  readonly limitBytes: number;
  /** Of the artifact. */
  readonly modelBytes: number;
  /** Of the states in all slots. */
  readonly slotBytes: number;
}

/** A config without `auto` sizes. */
export type SizedConfig = Config & { readonly sessionBytes: number; readonly prefixBytes: number };

/** Replaces `auto` by the usual size, or less where memory is short. */
export function withinMemory(config: Config, { limitBytes, modelBytes, slotBytes }: MemoryFacts): SizedConfig {
  const room = limitBytes - PROGRAM_BYTES - MODEL_FACTOR * modelBytes - slotBytes;
  const size = (given: number | "auto", usual: number, share: number, least: number) =>
    given === "auto" ? Math.min(usual, Math.max(least, Math.floor(room * share))) : given;
  return {
    ...config,
    sessionBytes: size(config.sessionBytes, DEFAULT_SESSION_BYTES, SESSION_SHARE, LEAST_SESSION_BYTES),
    prefixBytes: size(config.prefixBytes, DEFAULT_PREFIX_BYTES, PREFIX_SHARE, LEAST_PREFIX_BYTES),
  };
}

/** The minimum of the machine's memory and the limits of this process's control groups, version 2 or 1. */
export function memoryLimit(
  { read, totalBytes }: Pick<MachineFacts, "read"> & { readonly totalBytes: number } = thisMachine(),
): number {
  const files = (read("/proc/self/cgroup") ?? "").split("\n").flatMap((line) => {
    const [, controllers, group] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    if (controllers === "") return withParents(group!).flatMap((at) => [`${at}/memory.max`, `${at}/memory.high`]);
    if (controllers?.split(",").includes("memory") !== true) return [];
    return withParents(group!).map((at) => `/memory${at}/memory.limit_in_bytes`);
  });
  // In a container the group's own path may not be visible: there it is the root.
  const all = new Set([...files, "/memory.max", "/memory.high", "/memory/memory.limit_in_bytes"]);
  // No limit reads `max`, or more than any machine has.
  const limits = [...all].map((file) => Number.parseInt(read(`/sys/fs/cgroup${file}`) ?? "", 10));
  return Math.min(totalBytes, ...limits.filter((bytes) => bytes > 0));
}

/** `/a/b` → `/a/b`, `/a`, and the root, which is empty. */
function withParents(group: string): string[] {
  const names = group.split("/").filter((name) => name !== "");
  return [...names.keys(), names.length].map((count) =>
    names
      .slice(0, count)
      .map((name) => `/${name}`)
      .join(""),
  );
}

function thisMachine() {
  return { read: readText, totalBytes: totalmem() };
}
