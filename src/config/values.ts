/**
 * The kinds of value an option can have. Each takes what a flag, an environment variable (both text) or a JSON file
 * (typed) may hold, and refuses the rest with a message that says what was expected and what was given.
 */
import { isIP } from "node:net";
import { z } from "zod";

/** A schema from a parser that returns undefined for what it does not accept. */
function value<T>(expected: string, parse: (raw: unknown) => T | undefined, show = shown) {
  return z.unknown().transform((raw, context): T => {
    const parsed = parse(raw);
    if (parsed !== undefined) return parsed;
    context.addIssue({ code: "custom", message: `must be ${expected}, ${show(raw)} given` });
    return z.NEVER;
  });
}

export function text(expected = "a text that is not empty") {
  return value(expected, (raw) => (typeof raw === "string" && raw !== "" ? raw : undefined));
}

export function integer(min: number, max: number) {
  return value(`an integer from ${min} to ${max}`, (raw) => {
    const number = toNumber(raw);
    return Number.isInteger(number) && number >= min && number <= max ? number : undefined;
  });
}

export function decimal(min: number, max: number) {
  return value(`a number from ${min} to ${max}`, (raw) => {
    const number = toNumber(raw, DECIMAL);
    return number >= min && number <= max ? number : undefined;
  });
}

export function oneOf<const T extends string>(...choices: readonly T[]) {
  return value(`one of ${choices.join(", ")}`, (raw) => choices.find((choice) => choice === raw));
}

export function boolean() {
  return value("true or false", (raw) => {
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
  return value(`a size from ${min} to ${max} bytes such as 1048576, 64KiB, 512MiB or 1GB`, (raw) => {
    const bytes = withUnit(raw, SIZE_UNITS);
    return bytes !== undefined && bytes >= min && bytes <= max ? bytes : undefined;
  });
}

/** The same, or "auto": what fits. */
export function byteSizeOrAuto(min: number, max: number) {
  const expected = `auto, or a size from ${min} to ${max} bytes such as 1048576, 64KiB, 512MiB or 1GB`;
  return value(expected, (raw): number | "auto" | undefined => {
    if (raw === "auto") return raw;
    const bytes = withUnit(raw, SIZE_UNITS);
    return bytes !== undefined && bytes >= min && bytes <= max ? bytes : undefined;
  });
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
  return value(`a time from ${minMs} to ${maxMs} ms such as 1500, 90s, 10min, 12h or 30d`, (raw) => {
    const ms = withUnit(raw, TIME_UNITS);
    return ms !== undefined && ms >= minMs && ms <= maxMs ? ms : undefined;
  });
}

/** Of a Valkey or Redis server. A refused one is not repeated: it may have a password in it. */
export function valkeyUrl() {
  return value(
    "a URL such as valkey://host:6379 or redis://user:password@host/0, with valkeys or rediss for TLS",
    (raw) =>
      typeof raw === "string" && /^(?:redis|valkey)s?:\/\/[^/]/.test(raw) && URL.canParse(raw) ? raw : undefined,
    () => "something else was",
  );
}

/** Bearer tokens. A refused one is not repeated: it may be a secret with a typo. */
export function apiKeyList() {
  return value(
    "a list of keys, each of visible ASCII characters without spaces or commas",
    (raw) => toList(raw, (item) => /^[\x21-\x2b\x2d-\x7e]+$/.test(item)),
    () => "something else was",
  );
}

export function hostList() {
  return value("a list of host names such as llm.example.org, without a port, or *", (raw) =>
    toList(raw, (item) => item === "*" || isIP(item) !== 0 || /^[a-z0-9_-]+(?:\.[a-z0-9_-]+)*$/i.test(item)),
  );
}

export function originList() {
  return value("a list of origins such as https://chat.example.org, or *", (raw) =>
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

/** Rounded to an integer. */
function withUnit(raw: unknown, units: Readonly<Record<string, number>>): number | undefined {
  const [, number, unit] = /^\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*$/i.exec(String(raw)) ?? [];
  const factor = units[unit?.toLowerCase() ?? ""];
  return number === undefined || factor === undefined ? undefined : Math.round(Number(number) * factor);
}

const WHOLE = /^\s*-?\d+\s*$/;
const DECIMAL = /^\s*-?\d+(\.\d+)?\s*$/;

function toNumber(raw: unknown, spelling = WHOLE): number {
  if (typeof raw === "number") return raw;
  return typeof raw === "string" && spelling.test(raw) ? Number(raw) : Number.NaN;
}

function shown(raw: unknown): string {
  return JSON.stringify(raw) ?? String(raw);
}
