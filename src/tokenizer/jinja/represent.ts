/** Values as text: Python's str() and repr(). */
import { unsupported } from "./error.ts";
import type { Runtime } from "./runtime.ts";
import {
  Callable,
  Dict,
  DictView,
  Float,
  Loop,
  Namespace,
  Range,
  Tuple,
  typeOf,
  Undefined,
  type Value,
} from "./values.ts";

/** Python's str(). */
export function toText(value: Value, runtime: Runtime): string {
  if (typeof value === "string") return value;
  return value instanceof Undefined ? "" : represent(value, runtime);
}

/** Python's repr(). */
export function represent(value: Value, runtime: Runtime): string {
  runtime.spend(1);
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "number") return String(value);
  if (typeof value === "string") return runtime.made(quote(value));
  if (Array.isArray(value)) return `[${representAll(value, runtime)}]`;
  if (value instanceof Float) return showFloat(value.value);
  if (value instanceof Tuple) {
    const items = representAll(value.items, runtime);
    return value.items.length === 1 ? `(${items},)` : `(${items})`;
  }
  if (value instanceof Dict) return representDict(value, runtime);
  if (value instanceof DictView) return `dict_${value.kind}([${representAll([...value], runtime)}])`;
  if (value instanceof Range) {
    const { start, stop, step } = value;
    return step === 1 ? `range(${start}, ${stop})` : `range(${start}, ${stop}, ${step})`;
  }
  if (value instanceof Namespace) return `<Namespace ${representDict(value.attributes, runtime)}>`;
  if (value instanceof Undefined) return "Undefined";
  if (value instanceof Loop) return `<LoopContext ${value.index0 + 1}/${value.length}>`;
  if (value instanceof Callable && value.kind === "macro")
    return `<Macro ${value.name === "" ? "anonymous" : quote(value.name)}>`;
  throw unsupported(`showing a ${typeOf(value)}`);
}

function representAll(values: readonly Value[], runtime: Runtime): string {
  return runtime.made(values.map((value) => represent(value, runtime)).join(", "));
}

function representDict(dict: Dict, runtime: Runtime): string {
  const entries = [...dict.entries()].map(([k, v]) => `${represent(k, runtime)}: ${represent(v, runtime)}`);
  return runtime.made(`{${entries.join(", ")}}`);
}

export function showFloat(value: number): string {
  if (Number.isInteger(value) && Math.abs(value) < 1e16) return `${Object.is(value, -0) ? "-0" : value}.0`;
  const size = Math.abs(value);
  if (size >= 1e-4 && size < 1e16) return String(value);
  // JavaScript uses exponents for other sizes, and writes one digit without a leading zero.
  return value.toExponential().replace(/e([+-])(\d)$/, "e$10$2");
}

const QUOTED: Readonly<Record<string, string>> = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" };

function quote(text: string): string {
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escaped = text.replace(/[\\\n\r\t]|[\p{C}\p{Z}]/gu, (char) => {
    if (char === " ") return char;
    if (QUOTED[char] !== undefined) return QUOTED[char];
    const code = char.codePointAt(0)!;
    const hex = code.toString(16);
    if (code < 0x100) return `\\x${hex.padStart(2, "0")}`;
    return code < 0x10000 ? `\\u${hex.padStart(4, "0")}` : `\\U${hex.padStart(8, "0")}`;
  });
  return mark + escaped.replaceAll(mark, `\\${mark}`) + mark;
}
