/**
 * The keywords of a schema, read one by one: what each must be, and where it stands. What is wrong
 * is refused by its path.
 */
import { DenseMambaError } from "../errors.ts";
import { MAX_COUNT } from "./expression.ts";

export const TYPES = ["object", "array", "string", "number", "integer", "boolean", "null"] as const;
export type Type = (typeof TYPES)[number];

/** They say nothing of the value. */
export const ANNOTATIONS = new Set([
  ...["$schema", "$id", "$comment", "$anchor", "$defs", "definitions", "title", "description", "default"],
  ...["example", "examples", "deprecated", "readOnly", "writeOnly", "nullable", "discriminator", "xml", "externalDocs"],
  ...["contentEncoding", "contentMediaType", "contentSchema"],
]);
export const OBJECT_KEYWORDS = ["properties", "required", "additionalProperties", "propertyNames"];
const ARRAY_KEYWORDS = ["items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems"];
const STRING_KEYWORDS = ["minLength", "maxLength", "pattern", "format"];
const NUMBER_KEYWORDS = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];
export const SUPPORTED = new Set([
  ...["type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"],
  ...OBJECT_KEYWORDS,
  ...ARRAY_KEYWORDS,
  ...STRING_KEYWORDS,
  ...NUMBER_KEYWORDS,
]);

/** Where a schema stands in the whole. */
export type Path = readonly (string | number)[];

export interface Keyword {
  readonly value: unknown;
  readonly path: Path;
}

/** Keywords that all hold together, without references and combinations. */
export type Conjunction = ReadonlyMap<string, Keyword>;

export interface ObjectSchema {
  readonly [keyword: string]: unknown;
}

/** By `type`, or else by the keywords that are there: most schemas mean one type. */
export function typesOf(keywords: Conjunction, path: Path): readonly Type[] {
  const given = keywords.get("type");
  if (given !== undefined) {
    const types = Array.isArray(given.value) ? given.value : [given.value];
    for (const type of types) {
      if (TYPES.includes(type)) continue;
      throw refuse("invalid_value", given.path, `must be of ${TYPES.join(", ")}; got ${show(type)}`);
    }
    // An integer is a number: both would say the same twice.
    return types.includes("number") ? types.filter((type) => type !== "integer") : types;
  }
  if (keywords.has("enum")) return TYPES;
  const implied = (
    [
      ["object", OBJECT_KEYWORDS],
      ["array", ARRAY_KEYWORDS],
      ["string", STRING_KEYWORDS],
      ["number", NUMBER_KEYWORDS],
    ] as const
  ).filter(([, own]) => own.some((keyword) => keywords.has(keyword)));
  if (implied.length > 1) throw refuse("unsupported_value", path, "has keywords of several types and no type");
  return implied.length === 1 ? [implied[0]![0]] : TYPES.filter((type) => type !== "integer");
}

export function propertiesOf(keywords: Conjunction): Readonly<Record<string, unknown>> {
  const keyword = keywords.get("properties");
  if (keyword === undefined) return {};
  const { value, path } = keyword;
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw refuse("invalid_value", path, `must be an object; got ${show(value)}`);
}

export function isOfType(value: unknown, type: Type): boolean {
  switch (type) {
    case "null":
      return value === null;
    case "array":
      return Array.isArray(value);
    case "object":
      return typeof value === "object" && value !== null && !Array.isArray(value);
    case "integer":
      return Number.isInteger(value);
    default:
      return typeof value === type;
  }
}

export function countOf(keyword: Keyword | undefined, absent: number): number {
  if (keyword === undefined) return absent;
  const { value, path } = keyword;
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0) {
    throw refuse("invalid_value", path, `must be an integer, at least 0; got ${show(value)}`);
  }
  if (value > MAX_COUNT) throw refuse("unsupported_value", path, `must be at most ${MAX_COUNT}; got ${value}`);
  return value;
}

export function numberOf({ value, path }: Keyword): number {
  if (typeof value === "number" && Number.isFinite(value)) return value;
  throw refuse("invalid_value", path, `must be a number; got ${show(value)}`);
}

export function asList(value: unknown, path: Path): readonly unknown[] {
  if (Array.isArray(value) && value.length > 0) return value;
  throw refuse("invalid_value", path, `must be a list with at least one item; got ${show(value)}`);
}

export function stringList(keyword: Keyword | undefined): readonly string[] {
  if (keyword === undefined) return [];
  const { value, path } = keyword;
  if (Array.isArray(value) && value.every((item) => typeof item === "string")) return value;
  throw refuse("invalid_value", path, `must be a list of strings; got ${show(value)}`);
}

export function asText({ value, path }: Keyword): string {
  if (typeof value === "string") return value;
  throw refuse("invalid_value", path, `must be a string; got ${show(value)}`);
}

export function refuse(code: "invalid_value" | "unsupported_value", path: Path, message: string): DenseMambaError {
  return new DenseMambaError(code, message, { param: formatPath(path) });
}

/** `.properties.name.anyOf[1]`, to follow the name of the field that holds the schema. */
export function formatPath(path: Path): string {
  return path.map((key) => (typeof key === "number" ? `[${key}]` : `.${key}`)).join("");
}

/** The same for equal values: members are sorted by name. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_name, inner: unknown) => {
    if (typeof inner !== "object" || inner === null || Array.isArray(inner)) return inner;
    return Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}

export function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length <= 64 ? text : `${text.slice(0, 61)}...`;
}
