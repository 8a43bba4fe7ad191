/** The functions that every template has: jinja2's, and those that transformers adds. */
import { bind, integerArgument, textArgument } from "./arguments.ts";
import { TemplateError, unsupported } from "./error.ts";
import { toText } from "./represent.ts";
import type { Runtime } from "./runtime.ts";
import { strftime } from "./strftime.ts";
import { type Arguments, Callable, Dict, each, Namespace, Range, Undefined, type Value } from "./values.ts";

/** The longest that jinja2's sandbox allows. */
const MAX_RANGE = 100_000;

export const GLOBALS: ReadonlyMap<string, Value> = new Map(
  Object.entries({
    range,
    dict: (given: Arguments, runtime: Runtime) => dictOf(given, runtime),
    namespace,
    raise_exception: (given: Arguments, runtime: Runtime) => {
      throw new TemplateError(toText(bind("raise_exception", "message", given)[0]!, runtime));
    },
    strftime_now: (given: Arguments, { nowMs }: Runtime) =>
      strftime(textArgument(bind("strftime_now", "format", given)[0], "format"), new Date(nowMs)),
    ...Object.fromEntries(["cycler", "joiner", "lipsum"].map((name) => [name, () => refuse(name)])),
  }).map(([name, call]) => [name, new Callable("function", name, call)]),
);

function refuse(name: string): never {
  throw unsupported(`${name}()`);
}

function range({ args, kwargs }: Arguments): Value {
  if (kwargs.size > 0 || args.length === 0 || args.length > 3) {
    throw new TemplateError(`range takes 1 to 3 arguments without names, given ${args.length + kwargs.size}`);
  }
  for (const value of args) {
    if (value instanceof Undefined) throw new TemplateError(value.message);
    if (typeof value === "boolean") throw unsupported("a range of booleans");
  }
  const [first, second, third] = args.map((value) => integerArgument(value, 0, "range's argument"));
  const step = third ?? 1;
  if (step === 0) throw new TemplateError("range() arg 3 must not be zero");
  const result = second === undefined ? new Range(0, first!, 1) : new Range(first!, second, step);
  if (result.length > MAX_RANGE)
    throw new TemplateError(`a range has ${result.length} items; at most ${MAX_RANGE} are allowed`);
  return result;
}

function dictOf({ args, kwargs }: Arguments, runtime: Runtime): Dict {
  if (args.length > 1) throw new TemplateError(`dict expected at most 1 argument, got ${args.length}`);
  const [source] = args;
  if (source instanceof Dict) runtime.spend(source.size);
  const dict = new Dict(source instanceof Dict ? source.entries() : []);
  if (source !== undefined && !(source instanceof Dict)) {
    for (const pair of each(source, runtime)) {
      const [key, value, ...others] = [...each(pair, runtime)];
      if (key === undefined || value === undefined || others.length > 0) {
        throw new TemplateError("dict takes pairs of keys and values");
      }
      dict.set(key, value);
    }
  }
  for (const [key, value] of kwargs) dict.set(key, value);
  return dict;
}

function namespace(given: Arguments, runtime: Runtime): Namespace {
  const result = new Namespace();
  for (const [name, value] of dictOf(given, runtime).entries()) setAttribute(result, name, value);
  return result;
}

export function setAttribute(target: Namespace, name: Value, value: Value): void {
  if (typeof name === "string" && name.startsWith("_")) {
    throw new TemplateError(`a namespace cannot have attributes that begin with an underscore, given '${name}'`);
  }
  target.attributes.set(name, value);
}
