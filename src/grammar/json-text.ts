/**
 * JSON as text: what strings, numbers and any values look like. White space is fixed (one space
 * after a colon and a comma), so that an answer cannot consist of white space without end, and its
 * fixed parts are known before they are sampled.
 */
import {
  type CharacterSet,
  characters,
  choice,
  complement,
  EMPTY,
  type Expression,
  type Grammar,
  intersect,
  literal,
  optional,
  repeat,
  sequence,
  setOf,
} from "./expression.ts";
import type { CharacterForms } from "./regular-expression.ts";

/** Between elements, and between a name and its value. */
export const COMMA = literal(", ");
export const COLON = literal(": ");
const QUOTE = literal('"');

/** What strings have as it is: all but quotes, backslashes and control characters. */
const RAW: CharacterSet = setOf([
  [0x20, 0x21],
  [0x23, 0x5b],
  [0x5d, 0x10ffff],
]);
const BEYOND_ASCII: CharacterSet = setOf([[0x80, 0x10ffff]]);
/** Code point → the letter after the backslash. */
const SHORT_ESCAPES = new Map([
  [0x08, "b"],
  [0x09, "t"],
  [0x0a, "n"],
  [0x0c, "f"],
  [0x0d, "r"],
  [0x22, '"'],
  [0x5c, "\\"],
]);

const DIGIT = characters([[0x30, 0x39]]);
const NONZERO = characters([[0x31, 0x39]]);
const HEX = characters(rangesOf("0123456789ABCDEFabcdef"));

/** One code point of a string. Half a pair of surrogates is none, so no escape has one. */
const STRING_CHARACTER: Expression = choice([
  characters(RAW),
  sequence(
    literal("\\"),
    choice([
      characters(rangesOf('/"\\bfnrt')),
      sequence(literal("u"), characters(rangesOf("0123456789ABCEFabcef")), repeat(HEX, 3, 3)),
      sequence(literal("u"), characters(rangesOf("Dd")), characters(rangesOf("01234567")), repeat(HEX, 2, 2)),
    ]),
  ),
]);

function rangesOf(letters: string): CharacterSet {
  return setOf([...letters].map((letter) => [letter.charCodeAt(0), letter.charCodeAt(0)] as const));
}

/** How a pattern's characters are written inside a string. */
export const STRING_FORMS: CharacterForms = {
  character: (codePoint) => literal(JSON.stringify(String.fromCodePoint(codePoint)).slice(1, -1)),
  set: (set) => {
    const has = (codePoint: number) => set.some(([first, last]) => first <= codePoint && codePoint <= last);
    const letters = [...SHORT_ESCAPES].filter(([codePoint]) => has(codePoint)).map(([, letter]) => letter);
    const raw = characters(intersect(set, RAW));
    if (letters.length === 0) return raw;
    return choice([raw, sequence(literal("\\"), characters(rangesOf(letters.join(""))))]);
  },
};

/** How a pattern's characters are written in plain text. */
export const PLAIN_FORMS: CharacterForms = {
  character: (codePoint) => literal(String.fromCodePoint(codePoint)),
  set: (set) => characters(set),
};

export function quoted(content: Expression): Expression {
  return sequence(QUOTE, content, QUOTE);
}

/** @param min in code points, as JSON Schema counts */
export function stringOf(min: number, max: number): Expression {
  return quoted(repeat(STRING_CHARACTER, min, max));
}

/** A value as `JSON.stringify` would write it, but for the white space. */
export function jsonLiteral(value: unknown): Expression {
  return literal(writeJson(value));
}

function writeJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(writeJson).join(", ")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  return `{${Object.entries(value)
    .map(([name, member]) => `${JSON.stringify(name)}: ${writeJson(member)}`)
    .join(", ")}}`;
}

/** A name that is none of these. Written without escapes: an escaped name could equal one. */
export function nameExcept(names: readonly string[], grammar: Grammar): Expression {
  const root: NameTrie = { isName: false, next: new Map() };
  for (const name of names) {
    let node = root;
    for (const character of name) {
      const point = character.codePointAt(0)!;
      const next: NameTrie = node.next.get(point) ?? { isName: false, next: new Map() };
      node.next.set(point, next);
      node = next;
    }
    node.isName = true;
  }
  const rest = grammar.add(sequence(repeat(characters(RAW), 0), QUOTE));
  const beyondAscii = grammar.add(sequence(characters(intersect(RAW, BEYOND_ASCII)), rest));
  const restOf = ({ isName, next }: NameTrie): Expression => {
    const others = intersect(RAW, complement(setOf([...next.keys()].map((point) => [point, point] as const))));
    const isPlain = [...next.keys()].every((point) => point < 0x80);
    return choice([
      ...(isName ? [] : [QUOTE]),
      sequence(characters(isPlain ? intersect(others, complement(BEYOND_ASCII)) : others), rest),
      ...(isPlain ? [beyondAscii] : []),
      ...[...next].map(([point, node]) => sequence(literal(String.fromCodePoint(point)), restOf(node))),
    ]);
  };
  return sequence(QUOTE, restOf(root));
}

interface NameTrie {
  isName: boolean;
  readonly next: Map<number, NameTrie>;
}

/** Digits of a number without bounds: beyond 15 they would be rounded. */
const MAX_DIGITS = 15;
/** Of a number with bounds. */
const MAX_DECIMALS = 6;

const WHOLE = sequence(
  optional(literal("-")),
  choice([literal("0"), sequence(NONZERO, repeat(DIGIT, 0, MAX_DIGITS - 1))]),
);
const EXPONENT = sequence(characters(rangesOf("Ee")), optional(characters(rangesOf("+-"))), repeat(DIGIT, 1, 2));
export const ANY_INTEGER = WHOLE;
export const ANY_NUMBER = sequence(
  WHOLE,
  optional(sequence(literal("."), repeat(DIGIT, 1, MAX_DIGITS))),
  optional(EXPONENT),
);

export interface Bounds {
  readonly min?: number | undefined;
  readonly exclusiveMin?: number | undefined;
  readonly max?: number | undefined;
  readonly exclusiveMax?: number | undefined;
}

/**
 * Numbers between bounds, in plain decimal notation. Each number of decimals is a range of whole
 * numbers: those that the bounds, times a power of ten, leave.
 */
export function numberBetween(bounds: Bounds, isInteger: boolean): Expression {
  const given = [bounds.min, bounds.exclusiveMin, bounds.max, bounds.exclusiveMax].filter(
    (bound) => bound !== undefined,
  );
  const numWhole = Math.max(...given.map((bound) => String(BigInt(Math.trunc(Math.abs(bound)))).length));
  // With more digits a number might be rounded to a bound that it must not reach.
  const maxDecimals = isInteger ? 0 : Math.min(MAX_DECIMALS, Math.max(0, MAX_DIGITS - numWhole));
  return choice(
    Array.from({ length: maxDecimals + 1 }, (_, decimals) => {
      const limit = 10n ** BigInt(Math.max(MAX_DIGITS, numWhole)) - 1n;
      let [low, high] = [-limit, limit];
      if (bounds.min !== undefined) low = larger(low, scaled(bounds.min, decimals, "up"));
      if (bounds.exclusiveMin !== undefined) low = larger(low, scaled(bounds.exclusiveMin, decimals, "down") + 1n);
      if (bounds.max !== undefined) high = smaller(high, scaled(bounds.max, decimals, "down"));
      if (bounds.exclusiveMax !== undefined) high = smaller(high, scaled(bounds.exclusiveMax, decimals, "up") - 1n);
      return choice([
        fixedPoint(larger(low, 0n), high, decimals),
        sequence(literal("-"), fixedPoint(larger(-high, 1n), -low, decimals)),
      ]);
    }),
  );
}

/** bound · 10^decimals, rounded. */
function scaled(bound: number, decimals: number, direction: "up" | "down"): bigint {
  const [mantissa = "", exponent = "0"] = String(bound).split("e");
  const [whole = "", fraction = ""] = mantissa.split(".");
  const shift = Number(exponent) + decimals - fraction.length;
  const digits = BigInt(whole + fraction);
  if (shift >= 0) return digits * 10n ** BigInt(shift);
  const divisor = 10n ** BigInt(-shift);
  const down = digits >= 0n ? digits / divisor : -((-digits + divisor - 1n) / divisor);
  return direction === "down" || down * divisor === digits ? down : down + 1n;
}

/** Numbers low ≤ k ≤ high, both from 0, with a point before the last `decimals` digits. */
function fixedPoint(low: bigint, high: bigint, decimals: number): Expression {
  const options: Expression[] = [];
  /** Lengths of which every number is in between. */
  const full: number[] = [];
  for (let length = decimals + 1; low <= high && length <= String(high).length + decimals + 1; length++) {
    const [least, most] = [length === decimals + 1 ? 0n : 10n ** BigInt(length - 1), 10n ** BigInt(length) - 1n];
    const [first, last] = [larger(low, least), smaller(high, most)];
    if (first > last) continue;
    if (first === least && last === most && least > 0n) full.push(length);
    else {
      const digitsOf = (value: bigint) => String(value).padStart(length, "0");
      options.push(digitsBetween(digitsOf(first), digitsOf(last), decimals));
    }
  }
  if (full.length === 0) return choice(options);
  const more = repeat(DIGIT, full[0]! - decimals - 1, full.at(-1)! - decimals - 1);
  const fraction = decimals === 0 ? EMPTY : sequence(literal("."), repeat(DIGIT, decimals, decimals));
  return choice([...options, sequence(NONZERO, more, fraction)]);
}

/** Both of the same length. */
function digitsBetween(low: string, high: string, decimals: number): Expression {
  const { length } = low;
  if (length === 0) return literal("");
  const point = length === decimals ? literal(".") : literal("");
  if (/^0*$/.test(low) && /^9*$/.test(high)) return sequence(point, anyDigits(length, decimals));
  const [a, b] = [Number(low[0]), Number(high[0])];
  const digit = (value: number) => literal(String(value));
  const between = (from: number, to: number) => characters(from > to ? [] : [[0x30 + from, 0x30 + to]]);
  const [lowRest, highRest] = [low.slice(1), high.slice(1)];
  if (a === b) return sequence(point, digit(a), digitsBetween(lowRest, highRest, decimals));
  const nines = "9".repeat(length - 1);
  const zeros = "0".repeat(length - 1);
  return sequence(
    point,
    choice([
      sequence(digit(a), digitsBetween(lowRest, nines, decimals)),
      sequence(between(a + 1, b - 1), digitsBetween(zeros, nines, decimals)),
      sequence(digit(b), digitsBetween(zeros, highRest, decimals)),
    ]),
  );
}

function anyDigits(length: number, decimals: number): Expression {
  if (length <= decimals || decimals === 0) return repeat(DIGIT, length, length);
  return sequence(repeat(DIGIT, length - decimals, length - decimals), literal("."), repeat(DIGIT, decimals, decimals));
}

function larger(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}

function smaller(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}

/** The members of an object of which any names are allowed. */
export function openObject(name: Expression, value: Expression): Expression {
  const member = sequence(name, COLON, value);
  return sequence(literal("{"), optional(sequence(member, repeat(sequence(COMMA, member), 0))), literal("}"));
}

/** Rules for any string, any object and any value. */
export class AnyJson {
  readonly string: Expression;
  readonly object: Expression;
  readonly array: Expression;
  readonly value: Expression;

  constructor(grammar: Grammar) {
    this.string = grammar.add(stringOf(0, Number.POSITIVE_INFINITY));
    const value = grammar.reserve();
    this.value = { type: "rule", name: value };
    this.object = grammar.add(openObject(this.string, this.value));
    const rest = repeat(sequence(COMMA, this.value), 0);
    this.array = grammar.add(sequence(literal("["), optional(sequence(this.value, rest)), literal("]")));
    const words = ["true", "false", "null"].map(literal);
    grammar.define(value, choice([this.string, grammar.add(ANY_NUMBER), this.object, this.array, ...words]));
  }
}
