/** jinja2's filters, and `tojson` of transformers. */
import { bind, integerArgument, textArgument } from "./arguments.ts";
import { TemplateError, unsupported } from "./error.ts";
import { toJson } from "./json.ts";
import { joinTexts, padded, replaced, stripLeft, stripRight } from "./methods.ts";
import { binary, compare, formatText, numeric } from "./operators.ts";
import { toText } from "./represent.ts";
import type { Runtime } from "./runtime.ts";
import { SPACE } from "./space.ts";
import { attribute, subscript } from "./subscripts.ts";
import { runTest } from "./tests.ts";
import * as texts from "./text.ts";
import {
  type Arguments,
  Dict,
  DictView,
  each,
  equals,
  Float,
  Group,
  Iter,
  isTrue,
  iterate,
  lengthOf,
  numberIn,
  Range,
  Tuple,
  typeOf,
  Undefined,
  type Value,
  ValueSet,
} from "./values.ts";

type Filter = (value: Value, given: Arguments, runtime: Runtime) => Value;

/** Filters of jinja2 that are refused here. */
const OTHERS: readonly string[] = [
  ...["batch", "e", "escape", "filesizeformat", "forceescape", "pprint", "random", "safe", "slice", "striptags"],
  ...["urlencode", "urlize", "wordwrap", "xmlattr"],
];

/** A filter with these parameters. The texts that it makes are charged to the runtime. */
function filter(
  name: string,
  parameters: string,
  run: (value: Value, given: readonly (Value | undefined)[], runtime: Runtime) => Value,
): [string, Filter] {
  return [
    name,
    (value, given, runtime) => {
      if (typeof value === "string") runtime.spendText(value);
      const result = run(value, bind(name, parameters, given), runtime);
      if (typeof result === "string" || Array.isArray(result)) runtime.reserve(result.length);
      return result;
    },
  ];
}

/** A filter of the value's text alone. */
const textFilter = (name: string, run: (text: string) => Value) =>
  filter(name, "", (value, _, runtime) => run(toText(value, runtime)));

const length = (name: string) =>
  filter(name, "", (value) => {
    const result = lengthOf(value);
    if (result === undefined) throw new TemplateError(`object of type '${typeOf(value)}' has no len()`);
    return result;
  });

const withDefault = (name: string) =>
  filter(name, "? default_value boolean", (value, [fallback = "", boolean = false]) =>
    value instanceof Undefined || (isTrue(boolean) && !isTrue(value)) ? fallback : value,
  );

const select = (name: string, byAttribute: boolean, isWanted: boolean): [string, Filter] => [
  name,
  (value, given, runtime) => new Iter(selected(value, given, runtime, byAttribute, isWanted)),
];

const extreme = (name: string, sign: number) =>
  filter(name, "? case_sensitive attribute", (value, [sensitive = false, path = null], runtime) => {
    const keyOf = getter(path, runtime, !isTrue(sensitive));
    let best: { readonly item: Value; readonly key: Value } | undefined;
    for (const item of each(value, runtime)) {
      const key = keyOf(item);
      if (best === undefined || sign * compare(key, best.key, runtime) > 0) best = { item, key };
    }
    return best === undefined ? new Undefined("No aggregated item, sequence was empty.") : best.item;
  });

const FILTERS: ReadonlyMap<string, Filter> = new Map([
  filter("abs", "", (value) => numeric(Math.abs(number(value, "abs()")), value instanceof Float)),
  filter("attr", "name", (value, [name], runtime) => {
    if (value instanceof Dict && value.has(name!)) throw unsupported("attr of a dict's key");
    return attribute(value, textArgument(name, "name"), runtime);
  }),
  textFilter("capitalize", (text) => texts.capitalize(text)),
  filter("center", "? width", (value, [width = 80], runtime) =>
    padded(toText(value, runtime), width, undefined, "center", runtime),
  ),
  length("count"),
  length("length"),
  withDefault("d"),
  withDefault("default"),
  filter("dictsort", "? case_sensitive by reverse", dictSort),
  filter("first", "", (value) => {
    const next = iterate(value).next();
    return next.done ? new Undefined("No first item, sequence was empty.") : next.value;
  }),
  filter("float", "? default", (value, [fallback = new Float(0)]) => toFloat(value) ?? fallback),
  [
    "format",
    (value, { args, kwargs }, runtime) => {
      if (kwargs.size > 0) throw unsupported("format with names");
      return formatText(toText(value, runtime), new Tuple(args), runtime);
    },
  ],
  filter("groupby", "attribute ? default case_sensitive", groupBy),
  filter("indent", "? width first blank", indent),
  filter("int", "? default base", (value, [fallback = 0, base = 10]) => {
    if (base !== 10) throw unsupported("int of another base than 10");
    return toInteger(value) ?? fallback;
  }),
  filter("items", "", (value) => {
    if (value instanceof Undefined) return new Iter([][Symbol.iterator]());
    // Errors are thrown when the items are read.
    return new Iter(itemsOf(value));
  }),
  filter("join", "? d attribute", (value, [between = "", path = null], runtime) => {
    const itemOf = getter(path, runtime, false);
    const parts = [...each(value, runtime)].map((item) => toText(itemOf(item), runtime));
    return joinTexts(parts, toText(between, runtime), runtime);
  }),
  filter("last", "", (value, _, runtime) => {
    const items = reversible(value, runtime);
    if (items === undefined) throw new TemplateError(`'${typeOf(value)}' object is not reversible`);
    return items.length === 0 ? new Undefined("No last item, sequence was empty.") : items.at(-1)!;
  }),
  filter("list", "", (value, _, runtime) => [...each(value, runtime)]),
  textFilter("lower", (text) => text.toLowerCase()),
  ["map", (value, given, runtime) => new Iter(mapped(value, given, runtime))],
  extreme("max", 1),
  extreme("min", -1),
  select("reject", false, false),
  select("rejectattr", true, false),
  filter("replace", "old new ? count", (value, [from, to, count = null], runtime) => {
    const limit = integerArgument(count ?? undefined, -1, "count");
    return replaced(toText(value, runtime), toText(from!, runtime), toText(to!, runtime), limit, runtime);
  }),
  filter("reverse", "", (value, _, runtime) => {
    if (typeof value === "string") return Array.from(value).reverse().join("");
    const items = reversible(value, runtime);
    if (items !== undefined) runtime.reserve(items.length);
    if (items !== undefined) return new Iter([...items].reverse()[Symbol.iterator]());
    return [...each(value, runtime)].reverse();
  }),
  filter("round", "? precision method", (value, [precision = 0, method = "common"]) => round(value, precision, method)),
  select("select", false, true),
  select("selectattr", true, true),
  filter(
    "sort",
    "? reverse case_sensitive attribute",
    (value, [reverse = false, sensitive = false, path = null], runtime) => {
      const paths = typeof path === "string" ? path.split(",") : [path];
      const getters = paths.map((one) => getter(one, runtime, !isTrue(sensitive)));
      return sorted([...each(value, runtime)], (item) => getters.map((get) => get(item)), isTrue(reverse), runtime);
    },
  ),
  filter("string", "", (value, _, runtime) => toText(value, runtime)),
  filter("sum", "? attribute start", (value, [path = null, start = 0], runtime) => {
    const itemOf = getter(path, runtime, false);
    if (typeof start === "string") throw new TemplateError("sum() can't sum strings");
    let total: Value = start;
    for (const item of each(value, runtime)) total = sum(total, itemOf(item), runtime);
    return total;
  }),
  textFilter("title", titleOfWords),
  ["tojson", toJson],
  filter("trim", "? chars", (value, [chars], runtime) => stripLeft(stripRight(toText(value, runtime), chars), chars)),
  filter("truncate", "? length killwords end leeway", truncate),
  filter(
    "unique",
    "? case_sensitive attribute",
    (value, [sensitive = false, path = null], runtime) =>
      new Iter(unique(value, getter(path, runtime, !isTrue(sensitive)), runtime)),
  ),
  textFilter("upper", (text) => text.toUpperCase()),
  textFilter("wordcount", (text) => text.match(/[\p{L}\p{N}_]+/gu)?.length ?? 0),
]);

export const FILTER_NAMES: ReadonlySet<string> = new Set([...FILTERS.keys(), ...OTHERS]);

/** @throws TemplateError, also if there is no such filter */
export function runFilter(name: string, value: Value, given: Arguments, runtime: Runtime): Value {
  const run = FILTERS.get(name);
  if (run !== undefined) return run(value, given, runtime);
  throw OTHERS.includes(name) ? unsupported(`the filter '${name}'`) : new TemplateError(`No filter named '${name}'.`);
}

/** By a path such as `a.0.b`; the item itself without one. */
function getter(path: Value, runtime: Runtime, ignoresCase: boolean, fallback: Value = null): (item: Value) => Value {
  const parts = pathOf(path);
  return (item) => {
    let value = item;
    for (const part of parts) {
      value = subscript(value, part, runtime);
      if (fallback !== null && value instanceof Undefined) value = fallback;
    }
    return ignoresCase && typeof value === "string" ? value.toLowerCase() : value;
  };
}

function pathOf(path: Value): readonly Value[] {
  if (path === null) return [];
  if (typeof path !== "string") return [path];
  return path.split(".").map((part) => (/^[0-9]+$/.test(part) ? Number(part) : part));
}

function* mapped(value: Value, { args, kwargs }: Arguments, runtime: Runtime): Generator<Value> {
  if (!isTrue(value)) return;
  let convert: (item: Value) => Value;
  if (args.length === 0 && kwargs.has("attribute")) {
    for (const key of kwargs.keys()) {
      if (key !== "attribute" && key !== "default") throw new TemplateError(`Unexpected keyword argument '${key}'`);
    }
    convert = getter(kwargs.get("attribute")!, runtime, false, kwargs.get("default") ?? null);
  } else {
    const name = textArgument(args[0], "map's filter");
    const given = { args: args.slice(1), kwargs };
    convert = (item) => runFilter(name, item, given, runtime);
  }
  for (const item of each(value, runtime)) yield convert(item);
}

function* selected(
  value: Value,
  { args, kwargs }: Arguments,
  runtime: Runtime,
  byAttribute: boolean,
  isWanted: boolean,
): Generator<Value> {
  if (!isTrue(value)) return;
  if (byAttribute && args.length === 0) throw new TemplateError("Missing parameter for attribute name");
  const get = byAttribute ? getter(args[0]!, runtime, false) : (item: Value) => item;
  const [name, ...rest] = byAttribute ? args.slice(1) : args;
  const given = { args: rest, kwargs };
  for (const item of each(value, runtime)) {
    const tested = get(item);
    const isSo = name === undefined ? isTrue(tested) : runTest(textArgument(name, "a test"), tested, given, runtime);
    if (isSo === isWanted) yield item;
  }
}

function* unique(value: Value, keyOf: (item: Value) => Value, runtime: Runtime): Generator<Value> {
  const seen = new ValueSet();
  for (const item of each(value, runtime)) if (seen.add(keyOf(item))) yield item;
}

function* itemsOf(value: Value): Generator<Value> {
  if (!(value instanceof Dict)) throw new TemplateError("Can only get item pairs from a mapping.");
  for (const entry of value.entries()) yield new Tuple(entry);
}

/** What Python's reversed() takes, in its own order. */
function reversible(value: Value, runtime: Runtime): readonly Value[] | undefined {
  if (typeof value === "string") return Array.from(value);
  if (Array.isArray(value)) return value;
  if (value instanceof Tuple) return value.items;
  if (value instanceof Dict) return [...each(value, runtime)];
  if (value instanceof DictView || value instanceof Range) return [...each(value, runtime)];
  return value instanceof Undefined ? [] : undefined;
}

function sorted(items: Value[], keyOf: (item: Value) => Value, isReversed: boolean, runtime: Runtime): Value[] {
  const keyed = items.map((item) => ({ item, key: keyOf(item) }));
  keyed.sort((a, b) => (isReversed ? compare(b.key, a.key, runtime) : compare(a.key, b.key, runtime)));
  return keyed.map(({ item }) => item);
}

function dictSort(value: Value, given: readonly (Value | undefined)[], runtime: Runtime): Value {
  const [sensitive = false, by = "key", reverse = false] = given;
  if (by !== "key" && by !== "value") throw new TemplateError('You can only sort by either "key" or "value"');
  if (value instanceof Undefined) throw new TemplateError(value.message);
  if (!(value instanceof Dict)) throw new TemplateError(`'${typeOf(value)}' object has no attribute 'items'`);
  const keyOf = getter(by === "key" ? 0 : 1, runtime, !isTrue(sensitive));
  return sorted([...itemsOf(value)], keyOf, isTrue(reverse), runtime);
}

function groupBy(value: Value, given: readonly (Value | undefined)[], runtime: Runtime): Value {
  const [path, fallback = null, sensitive = false] = given;
  const keyOf = getter(path!, runtime, !isTrue(sensitive), fallback);
  const realKeyOf = getter(path!, runtime, false, fallback);
  const groups: { readonly key: Value; readonly items: Value[] }[] = [];
  for (const item of sorted([...each(value, runtime)], keyOf, false, runtime)) {
    const key = keyOf(item);
    const last = groups.at(-1);
    if (last && equals(last.key, key, runtime)) last.items.push(item);
    else groups.push({ key, items: [item] });
  }
  return groups.map(({ items }) => new Group(realKeyOf(items[0]!), items));
}

function indent(value: Value, given: readonly (Value | undefined)[], runtime: Runtime): Value {
  const [width = 4, first = false, blank = false] = given;
  if (value instanceof Undefined) throw new TemplateError(value.message);
  if (typeof value !== "string") throw new TemplateError(`indent takes str, not ${typeOf(value)}`);
  const wide = typeof width === "string" ? width.length : integerArgument(width, 4, "width");
  runtime.reserve(wide);
  const margin = typeof width === "string" ? width : " ".repeat(Math.max(0, wide));
  const lines = texts.splitLines(`${value}\n`, false);
  runtime.reserve(value.length + lines.length * (margin.length + 1));
  const rest = lines.slice(1).map((line) => (line !== "" || isTrue(blank) ? margin + line : line));
  const text = [lines[0]!, ...rest].join("\n");
  return isTrue(first) ? margin + text : text;
}

/** The filter's own, which is not Python's title(). */
function titleOfWords(text: string): string {
  const parts = text.split(WORD_BEGINNING).filter((part) => part !== "");
  return parts
    .map((part) => {
      const [first] = part;
      return first!.toUpperCase() + part.slice(first!.length).toLowerCase();
    })
    .join("");
}

const WORD_BEGINNING = new RegExp(`([-${SPACE}({\\[<]+)`);

function truncate(value: Value, given: readonly (Value | undefined)[], runtime: Runtime): Value {
  const [limit, kills = false, end = "...", leeway] = given;
  const most = integerArgument(limit, 255, "length");
  const extra = integerArgument(leeway ?? undefined, 5, "leeway");
  const ending = textArgument(end, "end");
  if (most < texts.numCodePoints(ending)) throw new TemplateError(`truncate's length is less than that of its end`);
  if (extra < 0) throw new TemplateError(`truncate's leeway must be at least 0, given ${extra}`);
  if (value instanceof Undefined) return value;
  const text = textArgument(value, "what is truncated");
  runtime.reserve(text.length);
  const chars = Array.from(text);
  if (chars.length <= most + extra) return text;
  const kept = chars.slice(0, most - texts.numCodePoints(ending)).join("");
  return (isTrue(kills) ? kept : texts.splitFromEnd(kept, " ", 1)[0]!) + ending;
}

function number(value: Value, what: string): number {
  if (value instanceof Undefined) throw new TemplateError(value.message);
  const found = numberIn(value);
  if (found === undefined) throw new TemplateError(`${what} takes a number, not ${typeOf(value)}`);
  return found;
}

const INTEGER = /^[+-]?[0-9]+(?:_[0-9]+)*$/;
const NUMBER =
  /^[+-]?(?:[0-9]+(?:_[0-9]+)*(?:\.(?:[0-9]+(?:_[0-9]+)*)?)?|\.[0-9]+(?:_[0-9]+)*)(?:e[+-]?[0-9]+(?:_[0-9]+)*)?$/i;

/** @returns undefined for what Python's int() and float() do not take */
function toInteger(value: Value): Value | undefined {
  if (value instanceof Undefined) throw new TemplateError(value.message);
  if (typeof value === "string") {
    const text = trimmed(value);
    return INTEGER.test(text) || NUMBER.test(text)
      ? numeric(Math.trunc(Number(text.replaceAll("_", ""))), false)
      : undefined;
  }
  const found = numberIn(value);
  return found === undefined ? undefined : numeric(Math.trunc(found), false);
}

function toFloat(value: Value): Value | undefined {
  if (value instanceof Undefined) throw new TemplateError(value.message);
  if (typeof value !== "string") {
    const found = numberIn(value);
    return found === undefined ? undefined : new Float(found);
  }
  const text = trimmed(value);
  return NUMBER.test(text) ? new Float(Number(text.replaceAll("_", ""))) : undefined;
}

function trimmed(text: string): string {
  const inner = stripLeft(stripRight(text, undefined), undefined);
  if (/[^\0-\x7f]/.test(inner) && /\p{Nd}/u.test(inner)) throw unsupported(`the number ${JSON.stringify(text)}`);
  if (/^[+-]?(?:inf|infinity|nan)$/i.test(inner)) throw unsupported(`the number ${JSON.stringify(text)}`);
  return inner;
}

function round(value: Value, precision: Value, method: Value): Value {
  if (method !== "common" && method !== "ceil" && method !== "floor") {
    throw new TemplateError("method must be common, ceil or floor");
  }
  const digits = integerArgument(precision, 0, "precision");
  const given = number(value, "round");
  if (digits < 0 || digits > 15) throw unsupported(`rounding to ${digits} digits`);
  if (method === "ceil" || method === "floor") {
    return new Float(Math[method](given * 10 ** digits) / 10 ** digits);
  }
  if (!(value instanceof Float)) return numeric(given, false);
  const scaled = given * 10 ** digits;
  if (Math.abs(scaled) > 1e15) throw unsupported(`rounding ${given} to ${digits} digits`);
  if (digits === 0) {
    const below = Math.floor(given);
    const isTie = given - below === 0.5;
    const rounded = isTie ? below + Math.abs(below % 2) : Math.round(given);
    return new Float(rounded === 0 && (given < 0 || Object.is(given, -0)) ? -0 : rounded);
  }
  if (Number.isInteger(scaled * 2) && !Number.isInteger(scaled)) {
    throw unsupported(`rounding ${given} to ${digits} digits`);
  }
  return new Float(Number(given.toFixed(digits)));
}

function sum(total: Value, item: Value, runtime: Runtime): Value {
  if (total instanceof Float || item instanceof Float) {
    // Since 3.12 Python compensates for rounding in sums of floats.
    if (total instanceof Float && item instanceof Float) throw unsupported("a sum of floats");
  }
  return binary("+", total, item, runtime);
}
