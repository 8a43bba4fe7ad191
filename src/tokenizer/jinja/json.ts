/** The filter `tojson` as transformers has it: Python's json.dumps(), with its spaces. */
import { bind } from "./arguments.ts";
import { TemplateError, unsupported } from "./error.ts";
import { showFloat } from "./represent.ts";
import type { Runtime } from "./runtime.ts";
import { compareText } from "./text.ts";
import { type Arguments, Dict, Float, integerIn, isTrue, Tuple, typeOf, type Value } from "./values.ts";

interface Style {
  readonly isAscii: boolean;
  /** For each level. Undefined: all in one line. */
  readonly indent: string | undefined;
  readonly between: string;
  readonly behindKey: string;
  readonly sortsKeys: boolean;
}

export function toJson(value: Value, given: Arguments, runtime: Runtime): string {
  const [ascii = false, indent = null, separators = null, sorts = false] = bind(
    "tojson",
    "? ensure_ascii indent separators sort_keys",
    given,
  );
  const step = indentIn(indent, runtime);
  const [between, behindKey] = separatorsIn(separators) ?? [step === undefined ? ", " : ",", ": "];
  const style = { isAscii: isTrue(ascii), indent: step, between, behindKey, sortsKeys: isTrue(sorts) };
  return dump(value, style, "\n", runtime);
}

function indentIn(indent: Value, runtime: Runtime): string | undefined {
  if (indent === null) return undefined;
  if (typeof indent === "string") return indent;
  const width = integerIn(indent);
  if (width === undefined) throw new TemplateError(`indent must be a number or a str, not ${typeOf(indent)}`);
  runtime.reserve(width);
  return " ".repeat(Math.max(0, width));
}

function separatorsIn(separators: Value): readonly [string, string] | undefined {
  if (separators === null) return undefined;
  const items = separators instanceof Tuple ? separators.items : Array.isArray(separators) ? separators : [];
  const [between, behindKey] = items;
  if (items.length === 2 && typeof between === "string" && typeof behindKey === "string") return [between, behindKey];
  throw unsupported("separators other than two texts");
}

/** @param newline the line break of this level, with its indent */
function dump(value: Value, style: Style, newline: string, runtime: Runtime): string {
  runtime.spend(1);
  if (value === null) return "null";
  if (typeof value === "boolean" || typeof value === "number") return String(value);
  if (typeof value === "string") return runtime.made(quote(value, style.isAscii));
  if (value instanceof Float) return showFloat(value.value);
  const inner = newline + (style.indent ?? "");
  if (Array.isArray(value) || value instanceof Tuple) {
    const items = Array.isArray(value) ? value : value.items;
    return enclose(
      "[",
      items.map((item) => dump(item, style, inner, runtime)),
      "]",
      style,
      newline,
      runtime,
    );
  }
  if (value instanceof Dict) {
    const entries = [...value.entries()];
    if (style.sortsKeys) entries.sort(([a], [b]) => compareKeys(a, b));
    const parts = entries.map(
      ([key, item]) => quote(keyText(key), style.isAscii) + style.behindKey + dump(item, style, inner, runtime),
    );
    return enclose("{", parts, "}", style, newline, runtime);
  }
  throw new TemplateError(`Object of type ${typeOf(value)} is not JSON serializable`);
}

function enclose(
  open: string,
  parts: readonly string[],
  close: string,
  { indent, between }: Style,
  newline: string,
  runtime: Runtime,
): string {
  if (parts.length === 0) return open + close;
  if (indent === undefined) return runtime.made(open + parts.join(between) + close);
  const inner = newline + indent;
  runtime.reserve(parts.length * (inner.length + between.length));
  return runtime.made(open + inner + parts.join(between + inner) + newline + close);
}

function compareKeys(a: Value, b: Value): number {
  if (typeof a === "string" && typeof b === "string") return compareText(a, b);
  throw unsupported("sorting keys that are no texts");
}

function keyText(key: Value): string {
  if (typeof key === "string") return key;
  if (key === null) return "null";
  if (typeof key === "boolean" || typeof key === "number") return String(key);
  if (key instanceof Float) return showFloat(key.value);
  throw new TemplateError(`keys must be str, int, float, bool or None, not ${typeOf(key)}`);
}

const SHORT: Readonly<Record<string, string>> = {
  ...{ '"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\f": "\\f", "\b": "\\b" },
};

const CONTROLS = "\\0-\\x1f";
const UNSAFE = new RegExp(`["\\\\${CONTROLS}]`, "g");

function quote(text: string, isAscii: boolean): string {
  const escaped = text.replace(
    isAscii ? /["\\]|[^ -~]/g : UNSAFE,
    (char) => SHORT[char] ?? `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  return `"${escaped}"`;
}
