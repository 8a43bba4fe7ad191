/**
 * The kinds of value an option can have. Each accepts what a flag or environment variable (text) or
 * a JSON file (typed) can hold, and refuses anything else with a message that says what was
 * expected and what was given.
 */
import { isIP } from "node:net";
import { homedir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { DenseMambaError } from "../errors.ts";

/** What `--help` says of a kind, and how its values are treated. */
export interface KindMeta {
  /** E.g. `<n>`; empty for a switch. */
  readonly argument: string;
  readonly isPath?: boolean;
  readonly isSecret?: boolean;
}

/** A schema from a parser that returns undefined for what it does not accept. */
function kind<T>(
  meta: KindMeta,
  expected: string,
  parse: (raw: unknown) => T | undefined,
  show = (raw: unknown) => JSON.stringify(raw) ?? String(raw),
) {
  return z
    .unknown()
    .transform((raw, context): T => {
      const parsed = parse(raw);
      if (parsed !== undefined) return parsed;
      context.addIssue({ code: "custom", message: `must be ${expected}, ${show(raw)} given` });
      return z.NEVER;
    })
    .meta({ ...meta });
}

/** The message does not repeat what may be a secret. */
const hidden = () => "something else was";

export function text(argument: string, expected = "a non-empty string") {
  return kind({ argument }, expected, nonEmpty);
}

/** In which `~` is expanded. */
export function path(argument: string, expected: string) {
  return kind({ argument, isPath: true }, expected, nonEmpty);
}

function nonEmpty(raw: unknown): string | undefined {
  return typeof raw === "string" && raw !== "" ? raw : undefined;
}

export function integer(min: number, max: number) {
  return kind({ argument: "<n>" }, `an integer from ${min} to ${max}`, (raw) => {
    const number = toNumber(raw, INTEGER);
    return Number.isInteger(number) ? within(min, max, number) : undefined;
  });
}

export function decimal(min: number, max: number) {
  return kind({ argument: "<n>" }, `a number from ${min} to ${max}`, (raw) => within(min, max, toNumber(raw, DECIMAL)));
}

export function oneOf<const T extends string>(...choices: readonly T[]) {
  return kind({ argument: `<${choices.join("|")}>` }, `one of ${choices.join(", ")}`, (raw) =>
    choices.find((choice) => choice === raw),
  );
}

export function boolean() {
  return kind({ argument: "" }, "true or false", (raw) => {
    if (raw === true || raw === "true" || raw === "1") return true;
    return raw === false || raw === "false" || raw === "0" ? false : undefined;
  });
}

const SIZE_UNITS: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/** A number of bytes: 4096, "64KiB", "1.5 GB". */
export function byteSize(min: number, max: number) {
  return kind({ argument: "<size>" }, sizeWithin(min, max), (raw) => within(min, max, withUnit(raw, SIZE_UNITS)));
}

/** The same, or "auto". */
export function byteSizeOrAuto(min: number, max: number) {
  return kind({ argument: "<size>" }, `auto, or ${sizeWithin(min, max)}`, (raw): number | "auto" | undefined =>
    raw === "auto" ? raw : within(min, max, withUnit(raw, SIZE_UNITS)),
  );
}

function sizeWithin(min: number, max: number): string {
  return `a size from ${min} to ${max} bytes such as 1048576, 64KiB, 512MiB or 1GB`;
}

const TIME_UNITS: Readonly<Record<string, number>> = {
  "": 1,
  ms: 1,
  s: 1000,
  min: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** Milliseconds, or a number with a unit: 1500, "90s", "12 h". */
export function duration(minMs: number, maxMs: number) {
  return kind({ argument: "<ms>" }, `a time from ${minMs} to ${maxMs} ms such as 1500, 90s, 10min, 12h or 30d`, (raw) =>
    within(minMs, maxMs, withUnit(raw, TIME_UNITS)),
  );
}

/** The same, or "never": Infinity. */
export function durationOrNever(minMs: number, maxMs: number) {
  const expected = `a time from ${minMs} to ${maxMs} ms such as 90s, 10min or 12h, or never`;
  return kind({ argument: "<ms>" }, expected, (raw) =>
    raw === "never" ? Number.POSITIVE_INFINITY : within(minMs, maxMs, withUnit(raw, TIME_UNITS)),
  );
}

/** Of a Valkey or Redis server. It may contain a password. */
export function valkeyUrl() {
  return kind(
    { argument: "<url>", isSecret: true },
    "a URL such as valkey://host:6379 or redis://user:password@host/0, with valkeys or rediss for TLS",
    (raw) =>
      typeof raw === "string" && /^(?:redis|valkey)s?:\/\/[^/]/.test(raw) && URL.canParse(raw) ? raw : undefined,
    hidden,
  );
}

/** Bearer tokens. A refused one may be a secret with a typo. */
export function apiKeyList() {
  return kind(
    { argument: "<key>", isSecret: true },
    "a list of keys, each of visible ASCII characters without spaces or commas",
    (raw) => {
      // A file has one in each line.
      const listed = typeof raw === "string" ? raw.split(/,|\s*\n\s*/).map((item) => item.trim()) : raw;
      return toList(listed, (item) => /^[\x21-\x2b\x2d-\x7e]+$/.test(item));
    },
    hidden,
  );
}

export function secret() {
  const least = 16;
  return kind(
    { argument: "<secret>", isSecret: true },
    `at least ${least} characters`,
    (raw) => (typeof raw === "string" && raw.trim().length >= least ? raw.trim() : undefined),
    hidden,
  );
}

export function hostList() {
  return kind({ argument: "<name>" }, "a list of host names such as llm.example.org, without a port, or *", (raw) =>
    toList(raw, (item) => item === "*" || isIP(item) !== 0 || /^[a-z0-9_-]+(?:\.[a-z0-9_-]+)*$/i.test(item)),
  );
}

/** A model has a name of its own if one is given before its path. */
export interface NamedFile {
  readonly name: string;
  readonly path: string;
}

export interface ModelSource {
  readonly name: string | undefined;
  /** A folder, a file, or a name on the hub. */
  readonly path: string;
}

/**
 * One from text, in which a comma is a part of the path; several from a repeated flag or a JSON
 * array.
 */
export function modelList() {
  return kind(
    { argument: "<model>" },
    "a folder, or a model on the Hugging Face hub, with NAME= before it or not; or a list of them",
    (raw): readonly ModelSource[] | undefined => {
      const items: readonly unknown[] = Array.isArray(raw) ? raw : [raw];
      if (items.length === 0 || !items.every((item) => nonEmpty(item) !== undefined)) return undefined;
      return Object.freeze((items as readonly string[]).map(toModelSource));
    },
  );
}

/** A path that has a `=` can be given as `./a=b`. */
function toModelSource(given: string): ModelSource {
  const [, name, path] = /^(\w[\w.:@+-]{0,127})=(.+)$/.exec(given) ?? [];
  return Object.freeze(path === undefined ? { name: undefined, path: given } : { name, path });
}

export function fileList() {
  return kind({ argument: "<name>=<file>" }, "a file with NAME= before it; or a list of them", (raw) => {
    const items: readonly unknown[] = Array.isArray(raw) ? raw : [raw];
    const files = items.map((item) => (typeof item === "string" ? toNamedFile(item) : undefined));
    return files.every((file) => file !== undefined) ? Object.freeze(files) : undefined;
  });
}

function toNamedFile(given: string): NamedFile | undefined {
  const [, name, path] = /^([A-Za-z0-9][A-Za-z0-9._:-]{0,127})=(.+)$/.exec(given) ?? [];
  return name === undefined || path === undefined ? undefined : Object.freeze({ name, path });
}

/** Of models. */
export function nameList() {
  return kind({ argument: "<name>" }, "a list of non-empty names without commas", (raw) =>
    toList(raw, (item) => item !== ""),
  );
}

export function urlPath() {
  return kind({ argument: "<path>" }, "a path such as /llm, without a final slash, or nothing", (raw) =>
    typeof raw === "string" && /^(?:\/[\w.~-]+)*$/.test(raw) ? raw : undefined,
  );
}

export function originList() {
  return kind({ argument: "<origin>" }, "a list of origins such as https://chat.example.org, or *", (raw) =>
    toList(raw, (item) => item === "*" || (URL.canParse(item) && new URL(item).origin === item)),
  );
}

/** From a JSON array, a repeated flag or comma-separated text. */
function toList(raw: unknown, accepts: (item: string) => boolean): readonly string[] | undefined {
  const items = typeof raw === "string" ? raw.split(",").map((item) => item.trim()) : raw;
  if (!Array.isArray(items)) return undefined;
  return items.every((item): item is string => typeof item === "string" && accepts(item))
    ? Object.freeze([...items])
    : undefined;
}

/** Rounded to an integer; NaN if it is not a number with one of the units. */
function withUnit(raw: unknown, units: Readonly<Record<string, number>>): number {
  const [, number, unit = ""] = /^\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*$/i.exec(String(raw)) ?? [];
  return Math.round(Number(number) * (units[unit.toLowerCase()] ?? Number.NaN));
}

/** @returns undefined if it is not, or NaN */
function within(min: number, max: number, number: number): number | undefined {
  return number >= min && number <= max ? number : undefined;
}

const INTEGER = /^\s*-?\d+\s*$/;
const DECIMAL = /^\s*-?\d+(\.\d+)?\s*$/;

function toNumber(raw: unknown, spelling: RegExp): number {
  if (typeof raw === "number") return raw;
  return typeof raw === "string" && spelling.test(raw) ? Number(raw) : Number.NaN;
}

/** @returns undefined for a user without one: no entry in passwd, and started without HOME */
export type FindHome = () => string | undefined;

export function userHome(): string | undefined {
  try {
    return homedir();
  } catch {
    return undefined;
  }
}

/**
 * Expands `~` and `~/…` as a shell does: compose files, unit files and images have no shell.
 * @throws `invalid_config`
 */
export function expandHome(given: string, findHome: FindHome, what: string): string {
  if (given !== "~" && !given.startsWith("~/")) return given;
  return join(homeFor(findHome, `${what} is ${given}`), given.slice(1));
}

/** @throws `invalid_config` if there is none */
export function homeFor(findHome: FindHome, why: string): string {
  const home = findHome();
  if (home) return home;
  throw new DenseMambaError("invalid_config", `${why}, and this user has no home folder: set HOME, or give the path`);
}
