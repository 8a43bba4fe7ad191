/** `value.name`, `value[key]` and `value[from:to:step]`, as jinja2's sandbox has them. */
import { TemplateError, unsupported } from "./error.ts";
import { methodOf } from "./methods.ts";
import type { Runtime } from "./runtime.ts";
import { codePointAt, sliceable } from "./text.ts";
import {
  Callable,
  Dict,
  Group,
  integerIn,
  isHashable,
  Loop,
  Namespace,
  Range,
  Tuple,
  typeOf,
  Undefined,
  type Value,
} from "./values.ts";

/** `value.name`: an attribute, or else an item. */
export function attribute(value: Value, name: string, runtime: Runtime): Value {
  if (value instanceof Undefined) throw new TemplateError(value.message);
  const own = ownAttribute(value, name, runtime);
  return own !== undefined ? own : orMissing(item(value, name), value, name);
}

/** `value[key]`: an item, or else an attribute. */
export function subscript(value: Value, key: Value, runtime: Runtime): Value {
  if (value instanceof Undefined) throw new TemplateError(value.message);
  for (const text of [value, key]) if (typeof text === "string") runtime.spendText(text);
  const found = item(value, key);
  if (found !== undefined) return found;
  if (typeof key !== "string") return new Undefined(`'${typeOf(value)}' object has no such element`);
  return orMissing(ownAttribute(value, key, runtime), value, key);
}

function orMissing(found: Value | undefined, value: Value, name: string): Value {
  return found !== undefined ? found : new Undefined(`'${typeOf(value)}' object has no attribute '${name}'`);
}

function item(value: Value, key: Value): Value | undefined {
  if (value instanceof Dict) return isHashable(key) ? value.get(key) : undefined;
  const index = integerIn(key);
  if (index === undefined) return undefined;
  if (typeof value === "string") return codePointAt(value, index);
  if (Array.isArray(value)) return value.at(index);
  if (value instanceof Tuple) return value.items.at(index);
  if (value instanceof Range) {
    const at = index < 0 ? index + value.length : index;
    return at >= 0 && at < value.length ? value.at(at) : undefined;
  }
  return undefined;
}

/** Attributes of Python's values that are not supported. */
const OTHER_ATTRIBUTES: Readonly<Record<string, RegExp>> = {
  int: /^(?:as_integer_ratio|bit_count|bit_length|conjugate|denominator|from_bytes|imag|is_integer|numerator|real|to_bytes)$/,
  float: /^(?:as_integer_ratio|conjugate|from_number|fromhex|hex|imag|is_integer|real)$/,
  range: /^(?:count|index)$/,
  dict_keys: /^(?:isdisjoint|mapping)$/,
  dict_items: /^(?:isdisjoint|mapping)$/,
  dict_values: /^mapping$/,
  generator: /^(?:close|send|throw)$/,
  Macro: /^(?:arguments|caller|catch_kwargs|catch_varargs|explicit_caller)$/,
  function: /^[^_]/,
};

function ownAttribute(value: Value, name: string, runtime: Runtime): Value | undefined {
  if (value instanceof Namespace) return value.attributes.get(name);
  if (name.startsWith("_")) {
    // Python's own are not accessible. They hide items of the same name.
    const isHidden = name.startsWith("__") && value instanceof Dict && value.has(name);
    if (isHidden) throw unsupported(`the name ${name}`);
    return undefined;
  }
  if (value instanceof Loop) return loopAttribute(value, name, runtime);
  if (value instanceof Group && (name === "grouper" || name === "list")) return value[name];
  if (value instanceof Range && (name === "start" || name === "stop" || name === "step")) return value[name];
  if (value instanceof Callable && value.kind === "macro" && name === "name") return value.name || null;
  const method = methodOf(value, name);
  if (method !== undefined) return method;
  const type = typeof value === "boolean" ? "int" : typeOf(value);
  if (OTHER_ATTRIBUTES[type]?.test(name)) throw unsupported(`.${name} of a ${typeOf(value)}`);
  return undefined;
}

function loopAttribute(loop: Loop, name: string, runtime: Runtime): Value | undefined {
  const { index0, depth0, iterable } = loop;
  if (typeof iterable === "string" && /^(?:length|revindex0?)$/.test(name)) runtime.spendText(iterable);
  switch (name) {
    case "index0":
      return index0;
    case "index":
      return index0 + 1;
    case "first":
      return index0 === 0;
    case "last":
      return loop.isLast;
    case "length":
      return loop.length;
    case "revindex":
      return loop.length - index0;
    case "revindex0":
      return loop.length - index0 - 1;
    case "depth":
      return depth0 + 1;
    case "depth0":
      return depth0;
    case "previtem":
      return loop.previous;
    case "nextitem":
      return loop.following;
    case "cycle":
      return new Callable("method", name, ({ args, kwargs }) => {
        if (args.length === 0 || kwargs.size > 0) throw new TemplateError("no items for cycling given");
        return args[loop.index0 % args.length]!;
      });
    case "changed":
      return new Callable("method", name, ({ args, kwargs }) => {
        if (kwargs.size > 0) throw new TemplateError("changed() takes no keyword arguments");
        return loop.hasChanged(new Tuple(args), runtime);
      });
  }
  return undefined;
}

export function slice(value: Value, start: Value, stop: Value, step: Value, runtime: Runtime): Value {
  if (value instanceof Undefined) throw new TemplateError(value.message);
  const by = indexIn(step) ?? 1;
  if (by === 0) throw new TemplateError("slice step cannot be zero");
  const bounds = [indexIn(start), indexIn(stop), by] as const;
  if (typeof value === "string") {
    runtime.reserve(value.length);
    const parts = sliceable(value);
    if (typeof parts === "string" && by === 1) return parts.slice(bounds[0] ?? 0, bounds[1]);
    return pick(parts, bounds).join("");
  }
  if (Array.isArray(value)) return picked(value, bounds, runtime);
  if (value instanceof Tuple) return new Tuple(picked(value.items, bounds, runtime));
  if (value instanceof Range) {
    const [from, to] = resolve(value.length, bounds);
    return new Range(value.at(from), value.at(to), value.step * by);
  }
  throw new TemplateError(`'${typeOf(value)}' object cannot be sliced`);
}

type Bounds = readonly [start: number | undefined, stop: number | undefined, step: number];

function picked(items: readonly Value[], bounds: Bounds, runtime: Runtime): Value[] {
  runtime.reserve(items.length);
  return bounds[2] === 1 ? items.slice(bounds[0] ?? 0, bounds[1]) : pick(items, bounds);
}

function pick<Item>(items: ArrayLike<Item>, bounds: Bounds): Item[] {
  const [from, to] = resolve(items.length, bounds);
  const [, , step] = bounds;
  const result: Item[] = [];
  for (let i = from; step > 0 ? i < to : i > to; i += step) result.push(items[i]!);
  return result;
}

function resolve(length: number, [start, stop, step]: Bounds): [number, number] {
  const [lowest, highest] = step > 0 ? [0, length] : [-1, length - 1];
  const within = (given: number) => Math.min(Math.max(given < 0 ? given + length : given, lowest), highest);
  const [first, last] = step > 0 ? [lowest, highest] : [highest, lowest];
  return [start === undefined ? first : within(start), stop === undefined ? last : within(stop)];
}

function indexIn(value: Value): number | undefined {
  if (value === null) return undefined;
  const index = integerIn(value);
  if (index === undefined) throw new TemplateError("slice indices must be integers or None");
  return index;
}
