/**
 * A schema as alternatives: each is a set of keywords that all hold together. References are
 * followed, and `allOf`, `anyOf` and `oneOf` are multiplied out.
 */
import type { JsonSchema } from "./constraint.ts";
import {
  ANNOTATIONS,
  asList,
  type Conjunction,
  canonicalJson,
  countOf,
  isOfType,
  type Keyword,
  numberOf,
  type ObjectSchema,
  type Path,
  propertiesOf,
  refuse,
  SUPPORTED,
  show,
  stringList,
  type Type,
  typesOf,
} from "./schema-keywords.ts";

const MAX_DEPTH = 128;
/** Of alternatives that `allOf` and `anyOf` multiply to. */
const MAX_ALTERNATIVES = 64;

export class SchemaAlternatives {
  readonly #root: JsonSchema;
  /** `allOf` of two schemas, where properties of the same name meet. */
  readonly #pairs = new Map<unknown, Map<unknown, ObjectSchema>>();

  constructor(root: JsonSchema) {
    this.#root = root;
  }

  /** Refuses what is no schema, and keywords that are not supported. */
  check(schema: unknown, path: Path): ObjectSchema {
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

  /**
   * The alternatives of a schema. None: it matches nothing.
   * @param open schemas that are being read, without a value of their own between
   */
  flatten(schema: unknown, path: Path, open: Set<object>): Conjunction[] {
    if (schema === true) return [new Map()];
    if (schema === false) return [];
    const checked = this.check(schema, path);
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
      if (typeof inner !== "object" || inner === null) return this.flatten(inner, at, open);
      if (open.has(inner)) throw refuse("invalid_value", at, "refers to itself without a value in between");
      open.add(inner);
      const flat = this.flatten(inner, at, open);
      open.delete(inner);
      return flat;
    };
    if (checked.$ref !== undefined) {
      const target = this.resolve(checked.$ref, [...path, "$ref"]);
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
      else merged.set(keyword, { value: this.#mergeKeyword(keyword, mine, other), path: other.path });
    }
    const properties = this.#mergeProperties(a, b);
    if (properties !== undefined) merged.set("properties", properties);
    const types = merged.get("type")?.value;
    if (Array.isArray(types) && types.length === 0) return undefined;
    return merged;
  }

  #mergeKeyword(keyword: string, mine: Keyword, other: Keyword): unknown {
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
        const known = new Set(asList(b, other.path).map(canonicalJson));
        return asList(a, mine.path).filter((value) => known.has(canonicalJson(value)));
      }
      case "minimum":
      case "exclusiveMinimum":
        return Math.max(numberOf(mine), numberOf(other));
      case "maximum":
      case "exclusiveMaximum":
        return Math.min(numberOf(mine), numberOf(other));
      case "minLength":
      case "minItems":
        return Math.max(countOf(mine, 0), countOf(other, 0));
      case "maxLength":
      case "maxItems":
        return Math.min(countOf(mine, 0), countOf(other, 0));
      case "additionalProperties":
        return this.both(a, b);
      case "properties":
        return a; // replaced by `#merge`
      default:
        if (canonicalJson(a) === canonicalJson(b)) return a;
        throw refuse("unsupported_value", other.path, `can't be combined with another ${keyword}`);
    }
  }

  #mergeProperties(a: Conjunction, b: Conjunction): Keyword | undefined {
    const [mine, others] = [propertiesOf(a), propertiesOf(b)];
    const path = (a.get("properties") ?? b.get("properties"))?.path;
    if (path === undefined) return undefined;
    const value: Record<string, unknown> = Object.create(null);
    const inOther = (name: string, schemas: Readonly<Record<string, unknown>>, other: Conjunction) =>
      Object.hasOwn(schemas, name) ? schemas[name] : (other.get("additionalProperties")?.value ?? true);
    for (const name of new Set([...Object.keys(mine), ...Object.keys(others)])) {
      value[name] = this.both(inOther(name, mine, a), inOther(name, others, b));
    }
    return { value, path };
  }

  /** The schema that stands for both of these. */
  both(a: unknown, b: unknown): unknown {
    if (a === b || b === true) return a;
    if (a === true) return b;
    if (a === false || b === false) return false;
    const pairs = this.#pairs.get(a) ?? new Map<unknown, ObjectSchema>();
    this.#pairs.set(a, pairs);
    const pair = pairs.get(b) ?? { allOf: [a, b] };
    pairs.set(b, pair);
    return pair;
  }

  /** What a `$ref` refers to. */
  resolve(reference: unknown, path: Path): { readonly schema: unknown; readonly path: Path } {
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
    const known = new Set(valuesA.map(canonicalJson));
    return !valuesB.some((value) => known.has(canonicalJson(value)));
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
  if (value !== undefined) return [canonicalJson(value)];
  return Array.isArray(values) ? values.map(canonicalJson) : undefined;
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
