/**
 * Numbers of JSON as text: any, and those between bounds.
 */
import { characters, choice, EMPTY, type Expression, literal, optional, repeat, sequence } from "./expression.ts";

const DIGIT = characters([[0x30, 0x39]]);
const NONZERO = characters([[0x31, 0x39]]);

/** Digits of a number without bounds: beyond 15 they would be rounded. */
const MAX_DIGITS = 15;
/** Of a number with bounds. */
const MAX_DECIMALS = 6;

const WHOLE = sequence(
  optional(literal("-")),
  choice([literal("0"), sequence(NONZERO, repeat(DIGIT, 0, MAX_DIGITS - 1))]),
);
const EXPONENT = sequence(
  choice([literal("e"), literal("E")]),
  optional(choice([literal("+"), literal("-")])),
  repeat(DIGIT, 1, 2),
);
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
