/** jinja2's tests: what follows `is`. */
import { bind } from "./arguments.ts";
import { TemplateError, unsupported } from "./error.ts";
import { binary, compare, contains } from "./operators.ts";
import { toText } from "./represent.ts";
import type { Runtime } from "./runtime.ts";
import * as texts from "./text.ts";
import {
  type Arguments,
  Callable,
  Dict,
  equals,
  Float,
  Loop,
  numberIn,
  Range,
  Tuple,
  tryIterate,
  typeOf,
  Undefined,
  type Value,
} from "./values.ts";

type Test = (value: Value, given: Arguments, runtime: Runtime) => boolean;

const test = (name: string, run: (value: Value, runtime: Runtime) => boolean): [string, Test] => [
  name,
  (value, given, runtime) => {
    bind(name, "", given);
    return run(value, runtime);
  },
];

const relation = (
  names: readonly string[],
  run: (value: Value, other: Value, runtime: Runtime) => boolean,
): [string, Test][] =>
  names.map((name) => [
    name,
    (value, given, runtime) => {
      if (given.kwargs.size > 0) throw unsupported(`naming the argument of the test '${name}'`);
      return run(value, bind(name, "other", given)[0]!, runtime);
    },
  ]);

const remainder = (value: Value, divisor: Value, runtime: Runtime) => binary("%", value, divisor, runtime);

const TESTS: ReadonlyMap<string, Test> = new Map([
  test("boolean", (value) => typeof value === "boolean"),
  test("callable", (value) => value instanceof Callable || value instanceof Loop || value instanceof Undefined),
  test("defined", (value) => !(value instanceof Undefined)),
  test("escaped", () => false),
  test("even", (value, runtime) => equals(remainder(value, 2, runtime), 0, runtime)),
  test("odd", (value, runtime) => equals(remainder(value, 2, runtime), 1, runtime)),
  test("false", (value) => value === false),
  test("true", (value) => value === true),
  test("filter", (value, runtime) => isNameIn(runtime.filterNames, value)),
  test("test", (value) => isNameIn(TEST_NAMES, value)),
  test("float", (value) => value instanceof Float),
  test("integer", (value) => typeof value === "number"),
  test("number", (value) => numberIn(value) !== undefined),
  test("iterable", (value) => value instanceof Loop || tryIterate(value) !== undefined),
  test("lower", (value, runtime) => texts.isLower(toText(value, runtime))),
  test("upper", (value, runtime) => texts.isUpper(toText(value, runtime))),
  test("mapping", (value) => value instanceof Dict),
  test("none", (value) => value === null),
  test("sequence", (value) => {
    const hasItems = value instanceof Dict || value instanceof Tuple || value instanceof Range || Array.isArray(value);
    return hasItems || typeof value === "string" || value instanceof Undefined;
  }),
  test("string", (value) => typeof value === "string"),
  test("undefined", (value) => value instanceof Undefined),
  ...relation(["divisibleby"], (value, other, runtime) => equals(remainder(value, other, runtime), 0, runtime)),
  ...relation(["eq", "equalto", "=="], equals),
  ...relation(["ne", "!="], (value, other, runtime) => !equals(value, other, runtime)),
  ...relation(["gt", "greaterthan", ">"], (value, other, runtime) => compare(value, other, runtime) > 0),
  ...relation(["ge", ">="], (value, other, runtime) => compare(value, other, runtime) >= 0),
  ...relation(["lt", "lessthan", "<"], (value, other, runtime) => compare(value, other, runtime) < 0),
  ...relation(["le", "<="], (value, other, runtime) => compare(value, other, runtime) <= 0),
  ...relation(["in"], (value, other, runtime) => contains(other, value, runtime)),
  ...relation(["sameas"], isSame),
]);

export const TEST_NAMES: ReadonlySet<string> = new Set(TESTS.keys());

/** @throws TemplateError, also if there is no such test */
export function runTest(name: string, value: Value, given: Arguments, runtime: Runtime): boolean {
  const run = TESTS.get(name);
  if (run === undefined) throw new TemplateError(`No test named '${name}'.`);
  return run(value, given, runtime);
}

function isNameIn(names: ReadonlySet<string>, value: Value): boolean {
  // Python looks it up in a dict, so it must be hashable.
  return new Dict([[value, null]]).size === 1 && typeof value === "string" && names.has(value);
}

/** Whether equal strings or numbers are identical depends on Python's interning. */
function isSame(value: Value, other: Value): boolean {
  if (value !== other) return false;
  if (typeof value === "string" || typeof value === "number") throw unsupported(`sameas of a ${typeOf(value)}`);
  return true;
}
