/**
 * A checkpoint's `config.json`: its text, and single values of it with their bounds. Knows no
 * family.
 */
import { invalidCheckpoint } from "./weights.ts";

/** `config.json`, parsed and otherwise untouched. */
export type ConfigJson = Readonly<Record<string, unknown>>;

/**
 * As Python writes JSON: with `Infinity`, `-Infinity` and `NaN`, which JSON has not, and which
 * transformers writes as `{"__float__": "Infinity"}` from version 5 on. A byte order mark in front
 * is passed over.
 * @throws SyntaxError
 */
export function parsePythonJson(text: string): unknown {
  const json = text.replace(/^\uFEFF|"(?:[^"\\]|\\.)*"|-?Infinity\b|NaN\b/g, (token) => {
    if (token === "\uFEFF") return "";
    return token.startsWith('"') ? token : `{"__float__": "${token}"}`;
  });
  return JSON.parse(json, (_, value: unknown) => {
    if (typeof value !== "object" || value === null || !("__float__" in value)) return value;
    return Number(value.__float__);
  });
}

interface Bounds {
  readonly min: number;
  readonly max: number;
  /** Stands in for a missing or null value. Without one the key is required. */
  readonly fallback?: number;
}

/** @throws `invalid_checkpoint` naming key, value and bounds. */
export function readInt(json: ConfigJson, key: string, bounds: Bounds): number {
  const value = readNumber(json, key, bounds);
  if (!Number.isInteger(value)) throw invalidCheckpoint(`config.json: ${key} is ${value}, not a whole number`);
  return value;
}

/** @throws `invalid_checkpoint` naming key, value and bounds. */
export function readNumber(json: ConfigJson, key: string, { min, max, fallback }: Bounds): number {
  const value = json[key] ?? fallback;
  if (value === undefined) throw invalidCheckpoint(`config.json: ${key} is missing`);
  if (typeof value !== "number" || !(value >= min && value <= max)) {
    throw invalidCheckpoint(
      `config.json: ${key} is ${typeof value === "number" ? value : JSON.stringify(value)}, not a number from ${min} to ${max}`,
    );
  }
  return value;
}

/**
 * A pair of numbers, from zero on, the upper of which may be infinite.
 * @throws `invalid_checkpoint`
 */
export function readRange(
  json: ConfigJson,
  key: string,
  fallback: readonly [min: number, max: number],
): readonly [min: number, max: number] {
  const value = json[key] ?? fallback;
  const [min, max] = Array.isArray(value) && value.length === 2 ? (value as unknown[]) : [];
  if (typeof min === "number" && typeof max === "number" && min >= 0 && min <= max) return [min, max];
  throw invalidCheckpoint(`config.json: ${key} is ${printed(value)}, not two numbers from 0 on in ascending order`);
}

/** Short enough for a message, with the numbers that JSON has not. */
export function printed(value: unknown): string {
  const text = JSON.stringify(value, (_, part: unknown) =>
    typeof part === "number" && !Number.isFinite(part) ? String(part) : part,
  );
  return text !== undefined && text.length > 100 ? `${text.slice(0, 100)}…` : String(text);
}

/** @throws `invalid_checkpoint` for anything but true, false, null or nothing. */
export function readBoolean(json: ConfigJson, key: string, fallback: boolean): boolean {
  const value = json[key] ?? fallback;
  if (typeof value !== "boolean") {
    throw invalidCheckpoint(`config.json: ${key} is ${JSON.stringify(value)}, not true or false`);
  }
  return value;
}

/** Transformers has two names for it. @throws `invalid_checkpoint` for another activation. */
export function requireSilu(json: ConfigJson): void {
  const activation = json.hidden_act ?? "silu";
  if (activation === "silu" || activation === "swish") return;
  throw invalidCheckpoint(`config.json: hidden_act ${JSON.stringify(activation)} is not silu`);
}

/** One id or a list of them, as `eos_token_id` is written. @throws `invalid_checkpoint` */
export function readTokenIds(json: ConfigJson, key: string, vocabSize: number): number[] {
  const value = json[key] ?? [];
  const ids: unknown[] = Array.isArray(value) ? value : [value];
  for (const id of ids) {
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) >= vocabSize) {
      throw invalidCheckpoint(
        `config.json: ${key} holds ${JSON.stringify(id)}, not a token id from 0 to ${vocabSize - 1}`,
      );
    }
  }
  return ids as number[];
}
