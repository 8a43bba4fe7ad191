/**
 * JSON Schema → a grammar of the JSON texts that it allows. What a grammar cannot say exactly is
 * refused by its path: nothing is left out silently. A grammar may allow less than the schema where
 * that is said below, never more.
 *
 * Objects have their members in the schema's order. Where a schema lists properties and says
 * nothing of others, there are none: models end such objects, and OpenAI's `strict` asks for it.
 */
import { DenseMambaError } from "../errors.ts";
import type { JsonSchema } from "./constraint.ts";
import {
  choice,
  EMPTY,
  type Expression,
  type Grammar,
  literal,
  NOTHING,
  optional,
  repeat,
  rule,
  sequence,
} from "./expression.ts";
import { FORMATS } from "./formats.ts";
import {
  ANY_INTEGER,
  ANY_NUMBER,
  type AnyJson,
  COLON,
  COMMA,
  jsonLiteral,
  nameExcept,
  numberBetween,
  openObject,
  quoted,
  STRING_FORMS,
  stringOf,
} from "./json-text.ts";
import { patternExpression } from "./regular-expression.ts";

const TYPES = ["object", "array", "string", "number", "integer", "boolean", "null"] as const;
type Type = (typeof TYPES)[number];

/** They say nothing of the value. */
const ANNOTATIONS = new Set([
  ...["$schema", "$id", "$comment", "$anchor", "$defs", "definitions", "title", "description", "default"],
  ...["example", "examples", "deprecated", "readOnly", "writeOnly", "nullable", "discriminator", "xml", "externalDocs"],
  ...["contentEncoding", "contentMediaType", "contentSchema"],
]);
const OBJECT_KEYWORDS = ["properties", "required", "additionalProperties", "propertyNames"];
const ARRAY_KEYWORDS = ["items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems"];
const STRING_KEYWORDS = ["minLength", "maxLength", "pattern", "format"];
const NUMBER_KEYWORDS = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];
const SUPPORTED = new Set([
  ...["type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"],
  ...OBJECT_KEYWORDS,
  ...ARRAY_KEYWORDS,
  ...STRING_KEYWORDS,
  ...NUMBER_KEYWORDS,
]);

const MAX_DEPTH = 128;
/** Of items, of characters, and of a pattern's repetitions. */
export const MAX_COUNT = 10_000;
/** Of all patterns of a schema. */
const MAX_PATTERN_LENGTH = 16_384;
/** Of alternatives that `allOf` and `anyOf` multiply to. */
const MAX_ALTERNATIVES = 64;

/** Where a schema stands in the whole. */
type Path = readonly (string | number)[];

interface Keyword {
  readonly value: unknown;
  readonly path: Path;
}

/** Keywords that all hold together, without references and combinations. */
type Conjunction = ReadonlyMap<string, Keyword>;

interface ObjectSchema {
  readonly [keyword: string]: unknown;
}

export class SchemaConverter {
  readonly #root: JsonSchema;
  readonly #strict: boolean;
  readonly #grammar: Grammar;
  readonly #any: AnyJson;
  /** Each schema is converted once; those that contain themselves refer to their rule. */
  readonly #rules = new Map<object, string>();
  #patternLength = 0;
  /** `allOf` of two schemas, where properties of the same name meet. */
  readonly #pairs = new Map<unknown, Map<unknown, ObjectSchema>>();

  /** @param strict without word on other properties, an object has only those that are listed */
  constructor(root: JsonSchema, strict: boolean, grammar: Grammar, any: AnyJson) {
    this.#root = root;
    this.#strict = strict;
    this.#grammar = grammar;
    this.#any = any;
  }

  /** @throws `invalid_value`, `unsupported_value`, with the path to the place at fault as `param` */
  convert(): Expression {
    return this.#convert(this.#root, []);
  }

  /** @param open schemas that are being converted, without a value of their own between */
  #convert(schema: unknown, path: Path, open: Set<object> = new Set()): Expression {
    if (schema === true) return this.#any.value;
    if (schema === false) return NOTHING;
    const checked = this.#check(schema, path);
    if (open.has(checked)) throw refuse("invalid_value", path, "refers to itself without a value in between");
    const known = this.#rules.get(checked);
    if (known !== undefined) return rule(known);
    const name = this.#grammar.reserve();
    this.#rules.set(checked, name);
    open.add(checked);
    this.#grammar.define(name, this.#body(checked, path, open));
    open.delete(checked);
    return rule(name);
  }

  #body(schema: ObjectSchema, path: Path, open: Set<object>): Expression {
    // Schemas that are nothing but a reference or a list of alternatives share their rules.
    const says = Object.keys(schema).filter((keyword) => !ANNOTATIONS.has(keyword) && !keyword.startsWith("x-"));
    if (says.length === 1 && says[0] === "$ref") {
      const target = this.#resolve(schema.$ref, [...path, "$ref"]);
      return this.#convert(target.schema, target.path, open);
    }
    if (says.length === 1 && says[0] === "anyOf") {
      const options = asList(schema.anyOf, [...path, "anyOf"]);
      return choice(options.map((option, index) => this.#convert(option, [...path, "anyOf", index], open)));
    }
    return choice(this.#flatten(schema, path, open).map((keywords) => this.#values(keywords, path)));
  }

  #check(schema: unknown, path: Path): ObjectSchema {
    if (typeof schema !== "object" || schema === null || Array.isArray(schema)) {
      throw refuse("invalid_value", path, `must be a schema: an object, true or false; got ${show(schema)}`);
    }
    if (path.length > 2 * MAX_DEPTH) throw refuse("unsupported_value", path, `is nested more than ${MAX_DEPTH} deep`);
    for (const keyword of Object.keys(schema)) {
      if (SUPPORTED.has(keyword) || ANNOTATIONS.has(keyword) || keyword.startsWith("x-")) continue;
      throw refuse("unsupported_value", [...path, keyword], "is not supported");
    }
    return schema as ObjectSchema;
  }

  /** The alternatives of a schema. None: it matches nothing. */
  #flatten(schema: unknown, path: Path, open: Set<object>): Conjunction[] {
    if (schema === true) return [new Map()];
    if (schema === false) return [];
    const checked = this.#check(schema, path);
    const own = new Map<string, Keyword>();
    for (const [keyword, value] of Object.entries(checked)) {
      if (!SUPPORTED.has(keyword) || ["anyOf", "oneOf", "allOf", "$ref"].includes(keyword)) continue;
      if (keyword === "const") own.set("enum", { value: [value], path: [...path, keyword] });
      else own.set(keyword, { value, path: [...path, keyword] });
    }
    if (checked.const !== undefined && Array.isArray(checked.enum)) {
      throw refuse("unsupported_value", [...path, "const"], "is not supported beside enum");
    }
    let alternatives: Conjunction[] = [own];
    const and = (others: readonly Conjunction[]) => {
      if (alternatives.length * others.length > MAX_ALTERNATIVES) {
        throw refuse("unsupported_value", path, `has more than ${MAX_ALTERNATIVES} combinations of its alternatives`);
      }
      alternatives = alternatives.flatMap((one) => others.flatMap((other) => this.#merge(one, other) ?? []));
    };
    const part = (inner: unknown, at: Path) => {
      if (typeof inner !== "object" || inner === null) return this.#flatten(inner, at, open);
      if (open.has(inner)) throw refuse("invalid_value", at, "refers to itself without a value in between");
      open.add(inner);
      const flat = this.#flatten(inner, at, open);
      open.delete(inner);
      return flat;
    };
    if (checked.$ref !== undefined) {
      const target = this.#resolve(checked.$ref, [...path, "$ref"]);
      and(part(target.schema, target.path));
    }
    for (const keyword of ["allOf", "anyOf", "oneOf"] as const) {
      if (checked[keyword] === undefined) continue;
      const at = [...path, keyword];
      const parts = asList(checked[keyword], at).map((inner, index) => part(inner, [...at, index]));
      if (keyword === "oneOf") checkDisjoint(parts, at);
      if (keyword === "allOf") for (const one of parts) and(one);
      else and(parts.flat());
    }
    return alternatives;
  }

  /** Both hold. Undefined: no value can match. */
  #merge(a: Conjunction, b: Conjunction): Conjunction | undefined {
    const merged = new Map(a);
    for (const [keyword, other] of b) {
      const mine = a.get(keyword);
      if (mine === undefined) merged.set(keyword, other);
      else merged.set(keyword, { value: mergeKeyword(keyword, mine, other), path: other.path });
    }
    const properties = this.#mergeProperties(a, b);
    if (properties !== undefined) merged.set("properties", properties);
    const closed = this.#mergeAdditional(a, b);
    if (closed !== undefined) merged.set("additionalProperties", closed);
    const types = merged.get("type")?.value;
    if (Array.isArray(types) && types.length === 0) return undefined;
    return merged;
  }

  #mergeProperties(a: Conjunction, b: Conjunction): Keyword | undefined {
    const [mine, others] = [propertiesOf(a), propertiesOf(b)];
    const path = (a.get("properties") ?? b.get("properties"))?.path;
    if (path === undefined) return undefined;
    const value: Record<string, unknown> = Object.create(null);
    const inOther = (name: string, schemas: Readonly<Record<string, unknown>>, other: Conjunction) =>
      Object.hasOwn(schemas, name) ? schemas[name] : (other.get("additionalProperties")?.value ?? true);
    for (const name of new Set([...Object.keys(mine), ...Object.keys(others)])) {
      value[name] = this.#both(inOther(name, mine, a), inOther(name, others, b));
    }
    return { value, path };
  }

  #mergeAdditional(a: Conjunction, b: Conjunction): Keyword | undefined {
    const [mine, other] = [a.get("additionalProperties"), b.get("additionalProperties")];
    if (mine === undefined || other === undefined) return undefined;
    return { value: this.#both(mine.value, other.value), path: mine.path };
  }

  #both(a: unknown, b: unknown): unknown {
    if (a === b || b === true) return a;
    if (a === true) return b;
    if (a === false || b === false) return false;
    const pairs = this.#pairs.get(a) ?? new Map<unknown, ObjectSchema>();
    this.#pairs.set(a, pairs);
    const pair = pairs.get(b) ?? { allOf: [a, b] };
    pairs.set(b, pair);
    return pair;
  }

  #resolve(reference: unknown, path: Path): { readonly schema: unknown; readonly path: Path } {
    const isLocal = typeof reference === "string" && /^#(?:\/|$)/.test(reference);
    if (!isLocal) {
      throw refuse(
        "unsupported_value",
        path,
        `must be a path within the schema, as "#/$defs/name"; got ${show(reference)}`,
      );
    }
    const keys = reference.slice(1).split("/").slice(1).map(unescapeKey);
    let schema: unknown = this.#root;
    for (const key of keys) {
      const isThere = typeof schema === "object" && schema !== null && Object.hasOwn(schema, key);
      if (!isThere) throw refuse("invalid_value", path, `refers to ${show(reference)}, which the schema does not have`);
      schema = (schema as Record<string, unknown>)[key];
    }
    return { schema, path: keys };
  }

  #values(keywords: Conjunction, path: Path): Expression {
    const types = typesOf(keywords, path);
    const values = keywords.get("enum");
    if (values !== undefined) return this.#enumeration(values, types, keywords);
    return choice(types.map((type) => this.#valuesOf(type, keywords)));
  }

  #enumeration({ value, path }: Keyword, types: readonly Type[], keywords: Conjunction): Expression {
    for (const keyword of keywords.keys()) {
      if (keyword === "type" || keyword === "enum") continue;
      throw refuse("unsupported_value", keywords.get(keyword)!.path, "is not supported beside enum or const");
    }
    const all = asList(value, path);
    if (all.length > MAX_COUNT) {
      throw refuse("unsupported_value", path, `must have at most ${MAX_COUNT} values; got ${all.length}`);
    }
    const values = all.filter((one) => types.some((type) => isOfType(one, type)));
    return choice([...new Set(values.map((one) => JSON.stringify(one)))].map((text) => jsonLiteral(JSON.parse(text))));
  }

  #valuesOf(type: Type, keywords: Conjunction): Expression {
    switch (type) {
      case "object":
        return this.#object(keywords);
      case "array":
        return this.#array(keywords);
      case "string":
        return this.#string(keywords);
      case "number":
      case "integer":
        return numbers(keywords, type === "integer");
      case "boolean":
        return choice([literal("true"), literal("false")]);
      case "null":
        return literal("null");
    }
  }

  #object(keywords: Conjunction): Expression {
    if (!OBJECT_KEYWORDS.some((keyword) => keywords.has(keyword)) && !this.#strict) return this.#any.object;
    const properties = propertiesOf(keywords);
    const required = new Set(stringList(keywords.get("required")));
    const listed = Object.keys(properties);
    const other = keywords.get("additionalProperties") ?? {
      value: !this.#strict && listed.length === 0,
      path: [],
    };
    const names = [...listed, ...[...required].filter((name) => !Object.hasOwn(properties, name))];
    const path = keywords.get("properties")?.path ?? [];
    const members = names.map((name) => {
      const value = Object.hasOwn(properties, name)
        ? this.#convert(properties[name], [...path, name])
        : this.#convert(other.value, other.path);
      return { isRequired: required.has(name), member: sequence(jsonLiteral(name), COLON, value) };
    });
    const extra = this.#additional(other, names, keywords.get("propertyNames"));
    if (members.length === 0) return extra === undefined ? literal("{}") : openObject(extra.name, extra.value);

    const more = extra && sequence(extra.name, COLON, extra.value);
    let after = more === undefined ? EMPTY : this.#grammar.add(repeat(sequence(COMMA, more), 0));
    const lastFirst = more === undefined ? EMPTY : optional(sequence(more, after));
    /** What follows each member. */
    const afters = members.map(() => after);
    for (const [index, { isRequired, member }] of [...members.entries()].toReversed()) {
      afters[index] = after;
      const here = sequence(COMMA, member, after);
      after = this.#grammar.add(isRequired ? here : choice([here, after]));
    }
    const firstRequired = members.findIndex(({ isRequired }) => isRequired);
    const canBeFirst = firstRequired === -1 ? members : members.slice(0, firstRequired + 1);
    const firsts = canBeFirst.map(({ member }, index) => sequence(member, afters[index]!));
    return sequence(literal("{"), choice(firstRequired === -1 ? [...firsts, lastFirst] : firsts), literal("}"));
  }

  #additional(
    { value, path }: Keyword,
    names: readonly string[],
    propertyNames: Keyword | undefined,
  ): { readonly name: Expression; readonly value: Expression } | undefined {
    if (propertyNames !== undefined && names.length > 0 && !isAnyString(propertyNames.value)) {
      throw refuse("unsupported_value", propertyNames.path, "is not supported beside properties or required");
    }
    const values = this.#convert(value, path);
    if (values === NOTHING) return undefined;
    if (names.length > 0) return { name: nameExcept(names, this.#grammar), value: values };
    if (propertyNames === undefined || isAnyString(propertyNames.value))
      return { name: this.#any.string, value: values };
    const onlyStrings = this.#both({ type: "string" }, propertyNames.value);
    return { name: this.#convert(onlyStrings, propertyNames.path), value: values };
  }

  #array(keywords: Conjunction): Expression {
    const unique = keywords.get("uniqueItems");
    if (unique !== undefined && unique.value !== false)
      throw refuse("unsupported_value", unique.path, "is not supported");
    // Before 2020-12 a list of `items` was what `prefixItems` is now.
    const isOld = Array.isArray(keywords.get("items")?.value);
    const prefixKeyword = isOld ? keywords.get("items") : keywords.get("prefixItems");
    const prefix = prefixKeyword === undefined ? [] : asList(prefixKeyword.value, prefixKeyword.path);
    const rest = isOld ? keywords.get("additionalItems") : keywords.get("items");
    const min = countOf(keywords.get("minItems"), 0);
    const max = countOf(keywords.get("maxItems"), Number.POSITIVE_INFINITY);
    // After a prefix others come only if the schema says which, or needs them.
    const restSchema = rest?.value ?? (prefix.length === 0 || min > prefix.length);
    const item = this.#convert(restSchema, rest?.path ?? []);
    const numLeft = (count: number) => [Math.max(0, min - count), max - count] as const;
    let tail = EMPTY;
    if (max > prefix.length) {
      const [few, many] = numLeft(prefix.length);
      const following = sequence(COMMA, item);
      if (prefix.length > 0) tail = repeat(following, few, many);
      else {
        const some = sequence(item, repeat(following, Math.max(0, few - 1), many - 1));
        tail = few === 0 ? optional(some) : some;
      }
    } else if (min > max) return NOTHING;
    for (const [index, schema] of [...prefix.entries()].toReversed()) {
      if (index >= max) continue;
      const value = this.#convert(schema, [...prefixKeyword!.path, index]);
      const here = sequence(...(index === 0 ? [] : [COMMA]), value, tail);
      tail = index < min ? here : optional(here);
    }
    return sequence(literal("["), tail, literal("]"));
  }

  #string(keywords: Conjunction): Expression {
    const [pattern, format] = [keywords.get("pattern"), keywords.get("format")];
    const min = countOf(keywords.get("minLength"), 0);
    const max = countOf(keywords.get("maxLength"), Number.POSITIVE_INFINITY);
    const length = keywords.get("maxLength") ?? (min > 0 ? keywords.get("minLength") : undefined);
    const options = { forms: STRING_FORMS, maxCount: MAX_COUNT };
    if (pattern === undefined && format === undefined) {
      return length === undefined ? this.#any.string : stringOf(min, max);
    }
    if (length !== undefined) {
      throw refuse("unsupported_value", length.path, "is not supported beside pattern or format");
    }
    if (pattern !== undefined) {
      const text = asText(pattern);
      this.#patternLength += text.length;
      if (this.#patternLength > MAX_PATTERN_LENGTH) {
        const message = `takes the schema's patterns over ${MAX_PATTERN_LENGTH} characters, the most that all may have`;
        throw refuse("unsupported_value", pattern.path, message);
      }
      return quoted(atPath(pattern.path, () => patternExpression(text, { ...options, isSearch: true })));
    }
    const known = FORMATS.get(asText(format!));
    if (known !== undefined) return quoted(patternExpression(known, { ...options, isSearch: false }));
    const all = [...FORMATS.keys()].join(", ");
    throw refuse("unsupported_value", format!.path, `is not supported: ${show(format!.value)}; supported are ${all}`);
  }
}

function numbers(keywords: Conjunction, isInteger: boolean): Expression {
  const multiple = keywords.get("multipleOf");
  if (multiple !== undefined && multiple.value !== 1) {
    throw refuse("unsupported_value", multiple.path, "is not supported, except 1");
  }
  const boundOf = (name: string) => {
    const keyword = keywords.get(name);
    if (keyword === undefined) return undefined;
    if (typeof keyword.value === "number" && Number.isFinite(keyword.value)) return keyword.value;
    throw refuse("invalid_value", keyword.path, `must be a number; got ${show(keyword.value)}`);
  };
  const bounds = {
    min: boundOf("minimum"),
    exclusiveMin: boundOf("exclusiveMinimum"),
    max: boundOf("maximum"),
    exclusiveMax: boundOf("exclusiveMaximum"),
  };
  const isWhole = isInteger || multiple !== undefined;
  if (Object.values(bounds).some((bound) => bound !== undefined)) return numberBetween(bounds, isWhole);
  return isWhole ? ANY_INTEGER : ANY_NUMBER;
}

/** By `type`, or else by the keywords that are there: most schemas mean one type. */
function typesOf(keywords: Conjunction, path: Path): readonly Type[] {
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

function mergeKeyword(keyword: string, mine: Keyword, other: Keyword): unknown {
  const [a, b] = [mine.value, other.value];
  switch (keyword) {
    case "type": {
      const [some, others] = [[a].flat(), [b].flat()];
      const both = some.filter((type) => others.includes(type) || (type === "integer" && others.includes("number")));
      return [...new Set([...both, ...(some.includes("number") && others.includes("integer") ? ["integer"] : [])])];
    }
    case "required":
      return [...new Set([...stringList(mine), ...stringList(other)])];
    case "enum": {
      const known = new Set(asList(b, other.path).map((value) => JSON.stringify(value)));
      return asList(a, mine.path).filter((value) => known.has(JSON.stringify(value)));
    }
    case "minimum":
    case "exclusiveMinimum":
    case "minLength":
    case "minItems":
      return Math.max(Number(a), Number(b));
    case "maximum":
    case "exclusiveMaximum":
    case "maxLength":
    case "maxItems":
      return Math.min(Number(a), Number(b));
    case "properties":
    case "additionalProperties":
      return a; // replaced by `#merge`
    default:
      if (JSON.stringify(a) === JSON.stringify(b)) return a;
      throw refuse("unsupported_value", other.path, `can't be combined with another ${keyword}`);
  }
}

/**
 * `oneOf` is `anyOf` if no value matches two of its schemas: their types differ, or a required
 * property has other values in each.
 */
function checkDisjoint(options: readonly (readonly Conjunction[])[], path: Path): void {
  for (const [index, one] of options.entries()) {
    for (const other of options.slice(0, index)) {
      if (one.every((a) => other.every((b) => areDisjoint(a, b)))) continue;
      const message = "is not supported where a value could match two of its schemas; use anyOf";
      throw refuse("unsupported_value", [...path, index], message);
    }
  }
}

function areDisjoint(a: Conjunction, b: Conjunction): boolean {
  const [valuesA, valuesB] = [a.get("enum")?.value, b.get("enum")?.value];
  if (Array.isArray(valuesA) && Array.isArray(valuesB)) {
    const known = new Set(valuesA.map((value) => JSON.stringify(value)));
    return !valuesB.some((value) => known.has(JSON.stringify(value)));
  }
  const [typesA, typesB] = [typesOf(a, []), typesOf(b, [])];
  const kind = (type: Type) => (type === "integer" ? "number" : type);
  if (Array.isArray(valuesA)) return !valuesA.some((value) => typesB.some((type) => isOfType(value, type)));
  if (Array.isArray(valuesB)) return !valuesB.some((value) => typesA.some((type) => isOfType(value, type)));
  if (!typesA.some((type) => typesB.some((other) => kind(type) === kind(other)))) return true;
  const areObjects = [typesA, typesB].every((types) => types.length === 1 && types[0] === "object");
  if (!areObjects) return false;
  const [required, requiredB] = [stringList(a.get("required")), stringList(b.get("required"))];
  return required.some((name) => {
    const [one, other] = [valuesOf(propertiesOf(a)[name]), valuesOf(propertiesOf(b)[name])];
    if (!requiredB.includes(name) || one === undefined || other === undefined) return false;
    return !one.some((value) => other.includes(value));
  });
}

/** The values of a schema that lists them, as JSON. */
function valuesOf(schema: unknown): string[] | undefined {
  if (typeof schema !== "object" || schema === null) return undefined;
  const { const: value, enum: values } = schema as ObjectSchema;
  if (value !== undefined) return [JSON.stringify(value)];
  return Array.isArray(values) ? values.map((one) => JSON.stringify(one)) : undefined;
}

function propertiesOf(keywords: Conjunction): Readonly<Record<string, unknown>> {
  const keyword = keywords.get("properties");
  if (keyword === undefined) return {};
  const { value, path } = keyword;
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw refuse("invalid_value", path, `must be an object; got ${show(value)}`);
}

function isOfType(value: unknown, type: Type): boolean {
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

function isAnyString(schema: unknown): boolean {
  if (schema === true) return true;
  if (typeof schema !== "object" || schema === null) return false;
  return Object.entries(schema).every(
    ([keyword, value]) => ANNOTATIONS.has(keyword) || (keyword === "type" && value === "string"),
  );
}

function countOf(keyword: Keyword | undefined, absent: number): number {
  if (keyword === undefined) return absent;
  const { value, path } = keyword;
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0) {
    throw refuse("invalid_value", path, `must be an integer, at least 0; got ${show(value)}`);
  }
  if (value > MAX_COUNT) throw refuse("unsupported_value", path, `must be at most ${MAX_COUNT}; got ${value}`);
  return value;
}

function asList(value: unknown, path: Path): readonly unknown[] {
  if (Array.isArray(value) && value.length > 0) return value;
  throw refuse("invalid_value", path, `must be a list with at least one item; got ${show(value)}`);
}

function stringList(keyword: Keyword | undefined): readonly string[] {
  if (keyword === undefined) return [];
  const { value, path } = keyword;
  if (Array.isArray(value) && value.every((item) => typeof item === "string")) return value;
  throw refuse("invalid_value", path, `must be a list of strings; got ${show(value)}`);
}

function asText({ value, path }: Keyword): string {
  if (typeof value === "string") return value;
  throw refuse("invalid_value", path, `must be a string; got ${show(value)}`);
}

/** Adds where a pattern stands to what is wrong with it. */
function atPath<Result>(path: Path, work: () => Result): Result {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof DenseMambaError)) throw error;
    throw new DenseMambaError(error.code, error.message, { param: formatPath(path), cause: error });
  }
}

function refuse(code: "invalid_value" | "unsupported_value", path: Path, message: string): DenseMambaError {
  return new DenseMambaError(code, message, { param: formatPath(path) });
}

/** `.properties.name.anyOf[1]`, to follow the name of the field that holds the schema. */
function formatPath(path: Path): string {
  return path.map((key) => (typeof key === "number" ? `[${key}]` : `.${key}`)).join("");
}

function unescapeKey(key: string): string {
  const decoded = /%/.test(key) ? safeDecode(key) : key;
  return decoded.replaceAll("~1", "/").replaceAll("~0", "~");
}

function safeDecode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length <= 64 ? text : `${text.slice(0, 61)}...`;
}
