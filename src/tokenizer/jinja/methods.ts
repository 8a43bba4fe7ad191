/**
 * The methods of Python's strings, lists, tuples and dicts. jinja2's sandbox has none that change a
 * value.
 */
import { bind, integerArgument, textArgument } from "./arguments.ts";
import { TemplateError, unsupported } from "./error.ts";
import { toText } from "./represent.ts";
import type { Runtime } from "./runtime.ts";
import { isSpace, lstrip, rstrip } from "./space.ts";
import * as texts from "./text.ts";
import { type Arguments, Callable, Dict, DictView, each, equals, isTrue, Tuple, type Value } from "./values.ts";

type Method<Self> = (self: Self, given: readonly (Value | undefined)[], runtime: Runtime) => Value;
/** Parameters as `bind` takes them, and what it does. */
type Methods<Self> = Readonly<Record<string, readonly [parameters: string, method: Method<Self>]>>;

const TEXT_METHODS: Methods<string> = {
  upper: ["", (text) => text.toUpperCase()],
  lower: ["", (text) => text.toLowerCase()],
  capitalize: ["", (text) => texts.capitalize(text)],
  title: ["", (text) => texts.title(text)],
  swapcase: ["", (text) => texts.swapCase(text)],
  strip: ["? chars /", (text, [chars]) => stripLeft(stripRight(text, chars), chars)],
  lstrip: ["? chars /", (text, [chars]) => stripLeft(text, chars)],
  rstrip: ["? chars /", (text, [chars]) => stripRight(text, chars)],
  split: ["? sep maxsplit", (text, given) => splitBy(texts.split, text, given)],
  rsplit: ["? sep maxsplit", (text, given) => splitBy(texts.splitFromEnd, text, given)],
  splitlines: ["? keepends", (text, [keeps]) => texts.splitLines(text, keeps !== undefined && isTrue(keeps))],
  startswith: ["prefix ? /", (text, [prefix]) => beginsOrEnds(prefix, (one) => text.startsWith(one))],
  endswith: ["suffix ? /", (text, [suffix]) => beginsOrEnds(suffix, (one) => text.endsWith(one))],
  replace: [
    "old new ? count /",
    (text, [from, to, count], runtime) => {
      const limit = integerArgument(count, -1, "count");
      return replaced(text, textArgument(from, "old"), textArgument(to, "new"), limit, runtime);
    },
  ],
  join: [
    "iterable ? /",
    (text, [items], runtime) => {
      const parts = [...each(items!, runtime)].map((part) => textArgument(part, "a joined item"));
      return joinTexts(parts, text, runtime);
    },
  ],
  find: ["sub ? /", (text, [part]) => indexOf(text, text.indexOf(textArgument(part, "sub")))],
  rfind: ["sub ? /", (text, [part]) => indexOf(text, text.lastIndexOf(textArgument(part, "sub")))],
  index: ["sub ? /", (text, [part]) => found(indexOf(text, text.indexOf(textArgument(part, "sub"))))],
  rindex: ["sub ? /", (text, [part]) => found(indexOf(text, text.lastIndexOf(textArgument(part, "sub"))))],
  count: ["sub ? /", (text, [part]) => texts.countOf(text, textArgument(part, "sub"))],
  partition: ["sep ? /", (text, [sep]) => partition(text, textArgument(sep, "sep"), false)],
  rpartition: ["sep ? /", (text, [sep]) => partition(text, textArgument(sep, "sep"), true)],
  removeprefix: [
    "prefix ? /",
    (text, [given]) => {
      const prefix = textArgument(given, "prefix");
      return text.startsWith(prefix) ? text.slice(prefix.length) : text;
    },
  ],
  removesuffix: [
    "suffix ? /",
    (text, [given]) => {
      const suffix = textArgument(given, "suffix");
      return text.endsWith(suffix) ? text.slice(0, text.length - suffix.length) : text;
    },
  ],
  isspace: ["", (text) => text !== "" && lstrip(text) === ""],
  islower: ["", (text) => texts.isLower(text)],
  isupper: ["", (text) => texts.isUpper(text)],
  isascii: ["", (text) => /^[\0-\x7f]*$/.test(text)],
  isalpha: ["", (text) => /^\p{L}+$/u.test(text)],
  isdecimal: ["", (text) => /^\p{Nd}+$/u.test(text)],
  isdigit: ["", (text) => isAllOf(text, /^\p{Nd}+$/u, "isdigit")],
  isnumeric: ["", (text) => isAllOf(text, /^\p{Nd}+$/u, "isnumeric")],
  isalnum: ["", (text) => isAllOf(text, /^[\p{L}\p{Nd}]+$/u, "isalnum")],
  zfill: [
    "width ? /",
    (text, [width], runtime) => {
      const missing = integerArgument(width, 0, "width") - texts.numCodePoints(text);
      runtime.reserve(missing);
      const sign = /^[+-]/.test(text) ? text[0]! : "";
      return missing > 0 ? sign + "0".repeat(missing) + text.slice(sign.length) : text;
    },
  ],
  center: ["width ? fillchar /", (text, [width, fill], runtime) => padded(text, width, fill, "center", runtime)],
  ljust: ["width ? fillchar /", (text, [width, fill], runtime) => padded(text, width, fill, "left", runtime)],
  rjust: ["width ? fillchar /", (text, [width, fill], runtime) => padded(text, width, fill, "right", runtime)],
};

const OTHER_TEXT_METHODS =
  /^(?:casefold|encode|expandtabs|format_map|isidentifier|isprintable|istitle|maketrans|translate)$/;

const LIST_METHODS: Methods<readonly Value[]> = {
  count: ["value ? /", (items, [value], runtime) => items.filter((item) => equals(item, value!, runtime)).length],
  index: ["value ? /", (items, [value], runtime) => found(items.findIndex((item) => equals(item, value!, runtime)))],
};

const DICT_METHODS: Methods<Dict> = {
  get: [
    "key ? default /",
    (dict, [key, fallback = null], runtime) => {
      if (typeof key === "string") runtime.spendText(key);
      const value = dict.get(key!);
      return value === undefined ? fallback : value;
    },
  ],
  items: ["", (dict) => new DictView("items", dict)],
  keys: ["", (dict) => new DictView("keys", dict)],
  values: ["", (dict) => new DictView("values", dict)],
  copy: [
    "",
    (dict, _, runtime) => {
      runtime.spend(dict.size);
      return new Dict(dict.entries());
    },
  ],
};

/** @returns undefined if it has none of this name. Bound to the value. */
export function methodOf(value: Value, name: string): Callable | undefined {
  if (typeof value === "string") {
    if (name === "format") return new Callable("method", name, (given, runtime) => formatBraces(value, given, runtime));
    if (OTHER_TEXT_METHODS.test(name)) throw unsupported(`.${name} of a str`);
    return bound(TEXT_METHODS, name, value);
  }
  if (Array.isArray(value)) {
    if (name === "copy") return new Callable("method", name, () => [...value]);
    return bound(LIST_METHODS, name, value);
  }
  if (value instanceof Tuple) return bound(LIST_METHODS, name, value.items);
  if (!(value instanceof Dict)) return undefined;
  if (name === "fromkeys") throw unsupported(".fromkeys of a dict");
  return bound(DICT_METHODS, name, value);
}

function bound<Self>(methods: Methods<Self>, name: string, self: Self): Callable | undefined {
  if (!Object.hasOwn(methods, name)) return undefined;
  const [parameters, method] = methods[name]!;
  return new Callable("method", name, (given, runtime) => {
    if (typeof self === "string") runtime.spendText(self);
    const result = method(self, bind(name, parameters, given), runtime);
    if (typeof result === "string" || Array.isArray(result)) runtime.reserve(result.length);
    return result;
  });
}

function stripper(chars: Value | undefined): (char: string) => boolean {
  if (chars === undefined || chars === null) return isSpace;
  const set = new Set(textArgument(chars, "strip's argument"));
  for (const char of set) if (char.length > 1) throw unsupported(`stripping ${JSON.stringify(char)}`);
  return (char) => set.has(char);
}

export function stripLeft(text: string, chars: Value | undefined): string {
  return lstrip(text, stripper(chars));
}

export function stripRight(text: string, chars: Value | undefined): string {
  return rstrip(text, stripper(chars));
}

function splitBy(
  splitter: typeof texts.split,
  text: string,
  [separator = null, limit]: readonly (Value | undefined)[],
): string[] {
  const by = separator === null ? null : textArgument(separator, "sep");
  return splitter(text, by, integerArgument(limit, -1, "maxsplit"));
}

function beginsOrEnds(given: Value | undefined, test: (one: string) => boolean): boolean {
  if (given instanceof Tuple) return given.items.some((one) => test(textArgument(one, "a tuple's item")));
  return test(textArgument(given, "the argument"));
}

/** In code points. */
function indexOf(text: string, unit: number): number {
  return unit === -1 ? -1 : texts.numCodePoints(text.slice(0, unit));
}

function found(index: number): number {
  if (index === -1) throw new TemplateError("not found");
  return index;
}

function partition(text: string, separator: string, fromEnd: boolean): Tuple {
  if (separator === "") throw new TemplateError("empty separator");
  const at = fromEnd ? text.lastIndexOf(separator) : text.indexOf(separator);
  if (at === -1) return new Tuple(fromEnd ? ["", "", text] : [text, "", ""]);
  return new Tuple([text.slice(0, at), separator, text.slice(at + separator.length)]);
}

/** Numeric characters other than digits differ between versions of Unicode. */
function isAllOf(text: string, pattern: RegExp, name: string): boolean {
  if (/[\p{No}\p{Nl}]/u.test(text)) throw unsupported(`${name} of ${JSON.stringify(text)}`);
  return pattern.test(text);
}

export function padded(
  text: string,
  width: Value | undefined,
  fill: Value | undefined,
  side: "left" | "right" | "center",
  runtime: Runtime,
): string {
  const char = fill === undefined ? " " : textArgument(fill, "the fill character");
  if (texts.numCodePoints(char) !== 1) throw new TemplateError("the fill character must be exactly one character long");
  const wide = integerArgument(width, 0, "width");
  const missing = wide - texts.numCodePoints(text);
  if (missing <= 0) return text;
  runtime.reserve(missing * char.length);
  // Odd padding is split as in CPython.
  const before = side === "left" ? 0 : side === "right" ? missing : Math.floor(missing / 2) + (missing & wide & 1);
  return char.repeat(before) + text + char.repeat(missing - before);
}

export function replaced(text: string, from: string, to: string, limit: number, runtime: Runtime): string {
  runtime.spendText(text);
  const count = Math.min(texts.countOf(text, from), limit < 0 ? Number.POSITIVE_INFINITY : limit);
  runtime.reserve(text.length + count * Math.max(0, to.length - from.length));
  return texts.replaceText(text, from, to, limit);
}

export function joinTexts(parts: readonly string[], separator: string, runtime: Runtime): string {
  let length = separator.length * Math.max(0, parts.length - 1);
  for (const part of parts) length += part.length;
  runtime.reserve(length);
  return parts.join(separator);
}

/** str.format() with `{}`, `{0}` and `{name}`; other fields are not supported. */
function formatBraces(text: string, { args, kwargs }: Arguments, runtime: Runtime): string {
  let next = 0;
  let isNumbered = false;
  const result = text.replace(/\{\{|\}\}|\{(\d*|[A-Za-z_]\w*)\}|[{}]/g, (written, key?: string) => {
    if (key === undefined) {
      if (written.length === 2) return written[0]!;
      throw unsupported(`the format ${JSON.stringify(text)}`);
    }
    const isPosition = /^\d*$/.test(key);
    if (isPosition && key !== "") isNumbered = true;
    const value = isPosition ? args[key === "" ? next++ : Number(key)] : kwargs.get(key);
    if (isNumbered && next > 0) throw unsupported("a format with numbered and other places");
    if (value === undefined) throw new TemplateError(`the format has no value for {${key}}`);
    return runtime.made(toText(value, runtime));
  });
  return runtime.made(result);
}
