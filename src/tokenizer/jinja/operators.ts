/** Python's operators: arithmetic, % formatting, order and `in`. */
import type { BinaryOperator } from "./ast.ts";
import { TemplateError, unsupported } from "./error.ts";
import { represent, toText } from "./represent.ts";
import type { Runtime } from "./runtime.ts";
import { compareText } from "./text.ts";
import {
  Dict,
  DictView,
  each,
  equals,
  Float,
  integerIn,
  numberIn,
  Range,
  Tuple,
  typeOf,
  Undefined,
  type Value,
} from "./values.ts";

export function binary(operator: BinaryOperator, a: Value, b: Value, runtime: Runtime): Value {
  if (operator === "%" && typeof a === "string") return formatText(a, b, runtime);
  for (const value of [a, b]) if (value instanceof Undefined) throw new TemplateError(value.message);
  const [x, y] = [numberIn(a), numberIn(b)];
  if (x !== undefined && y !== undefined) return arithmetic(operator, x, y, a instanceof Float || b instanceof Float);
  if (operator === "+") {
    if (typeof a === "string" && typeof b === "string") {
      runtime.reserve(a.length + b.length);
      return a + b;
    }
    if (Array.isArray(a) && Array.isArray(b)) return joined(a, b, runtime);
    if (a instanceof Tuple && b instanceof Tuple) return new Tuple(joined(a.items, b.items, runtime));
  }
  if (operator === "*") {
    const [repeated, times] = integerIn(a) === undefined ? [a, integerIn(b)] : [b, integerIn(a)];
    if (times !== undefined) {
      if (typeof repeated === "string") {
        runtime.reserve(repeated.length * times);
        return repeated.repeat(Math.max(0, times));
      }
      if (Array.isArray(repeated)) return repeat(repeated, times, runtime);
      if (repeated instanceof Tuple) return new Tuple(repeat(repeated.items, times, runtime));
    }
  }
  throw new TemplateError(`unsupported operand type(s) for ${operator}: '${typeOf(a)}' and '${typeOf(b)}'`);
}

function joined(a: readonly Value[], b: readonly Value[], runtime: Runtime): Value[] {
  runtime.reserve(a.length + b.length);
  return [...a, ...b];
}

function repeat(items: readonly Value[], times: number, runtime: Runtime): Value[] {
  runtime.reserve(items.length * times);
  return Array.from({ length: Math.max(0, times) }, () => items).flat() as Value[];
}

function arithmetic(operator: BinaryOperator, x: number, y: number, isFloat: boolean): Value {
  if (y === 0 && (operator === "/" || operator === "//" || operator === "%")) {
    throw new TemplateError("division by zero");
  }
  switch (operator) {
    case "+":
      return numeric(x + y, isFloat);
    case "-":
      return numeric(x - y, isFloat);
    case "*":
      return numeric(x * y, isFloat);
    case "/":
      return new Float(x / y);
    case "//":
      return numeric(isFloat ? floorOf(x, y) : Math.floor((x - modulo(x, y)) / y), isFloat);
    case "%":
      return numeric(modulo(x, y), isFloat);
    case "**":
      // C libraries differ in the last digit of results that are not integers.
      if (isFloat || y < 0) throw unsupported("** of other than natural numbers");
      return numeric(x ** y, false);
  }
}

/** Has the sign of the divisor. */
function modulo(x: number, y: number): number {
  const rest = x % y;
  if (rest === 0) return y < 0 ? -0 : 0;
  return rest < 0 === y < 0 ? rest : rest + y;
}

/** Floor division of floats, as CPython computes it. */
function floorOf(x: number, y: number): number {
  const quotient = (x - modulo(x, y)) / y;
  if (quotient === 0) return x / y < 0 || Object.is(x / y, -0) ? -0 : 0;
  const floor = Math.floor(quotient);
  return quotient - floor > 0.5 ? floor + 1 : floor;
}

export function numeric(value: number, isFloat: boolean): Value {
  if (isFloat) return new Float(value);
  if (!Number.isSafeInteger(value)) throw unsupported(`the integer ${value}`);
  return value === 0 ? 0 : value;
}

/** `'%s' % value`, with %s, %r, %d and %i only. */
export function formatText(format: string, given: Value, runtime: Runtime): string {
  const values = given instanceof Tuple ? given.items : [given];
  let used = 0;
  const text = format.replace(/%(?:([sdir])|(%)|[\s\S]?)/g, (written, kind?: string, percent?: string) => {
    if (percent) return "%";
    if (kind === undefined) throw unsupported(`the format ${JSON.stringify(written)} in a text`);
    if (used === values.length) throw new TemplateError("not enough arguments for format string");
    const value = values[used++]!;
    if (kind === "s") return runtime.made(toText(value, runtime));
    if (kind === "r") return runtime.made(represent(value, runtime));
    const number = numberIn(value);
    if (number === undefined)
      throw new TemplateError(`%${kind} format: a real number is required, not ${typeOf(value)}`);
    return String(Math.trunc(number) || 0);
  });
  const isUnused = used < values.length && (given instanceof Tuple || !isMapping(given));
  if (isUnused) throw new TemplateError("not all arguments converted during string formatting");
  return runtime.made(text);
}

/** Python accepts an unused right side if it has keys or indices. */
function isMapping(value: Value): boolean {
  return Array.isArray(value) || value instanceof Dict || value instanceof Range || value instanceof Undefined;
}

/** Negative, 0 or positive, as for sorting. */
export function compare(a: Value, b: Value, runtime: Runtime): number {
  runtime.spend(1);
  if (typeof a === "string" && typeof b === "string") {
    runtime.spendText(a);
    runtime.spendText(b);
    return compareText(a, b);
  }
  const [x, y] = [numberIn(a), numberIn(b)];
  if (x !== undefined && y !== undefined) return x - y;
  if (Array.isArray(a) && Array.isArray(b)) return compareAll(a, b, runtime);
  if (a instanceof Tuple && b instanceof Tuple) return compareAll(a.items, b.items, runtime);
  for (const value of [a, b]) if (value instanceof Undefined) throw new TemplateError(value.message);
  throw new TemplateError(`'${typeOf(a)}' and '${typeOf(b)}' cannot be compared`);
}

function compareAll(a: readonly Value[], b: readonly Value[], runtime: Runtime): number {
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    if (!equals(a[i]!, b[i]!, runtime)) return compare(a[i]!, b[i]!, runtime);
  }
  return a.length - b.length;
}

export function contains(container: Value, item: Value, runtime: Runtime): boolean {
  if (typeof container === "string") {
    if (typeof item !== "string") {
      throw new TemplateError(`'in <string>' requires string as left operand, not ${typeOf(item)}`);
    }
    runtime.spendText(container);
    return container.includes(item);
  }
  if (typeof item === "string") runtime.spendText(item);
  if (container instanceof Dict) return container.has(item);
  if (container instanceof DictView && container.kind === "keys") return container.dict.has(item);
  for (const other of each(container, runtime)) if (equals(other, item, runtime)) return true;
  return false;
}
