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
  MAX_COUNT,
  NOTHING,
  optional,
  repeat,
  rule,
  sequence,
} from "./expression.ts";
import { FORMATS } from "./formats.ts";
import { ANY_INTEGER, ANY_NUMBER, numberBetween } from "./json-numbers.ts";
import {
  type AnyJson,
  COLON,
  COMMA,
  jsonLiteral,
  nameExcept,
  openObject,
  quoted,
  STRING_FORMS,
  stringOf,
} from "./json-text.ts";
import { patternExpression } from "./regular-expression.ts";
import { SchemaAlternatives } from "./schema-alternatives.ts";
import {
  ANNOTATIONS,
  asList,
  asText,
  type Conjunction,
  countOf,
  formatPath,
  isOfType,
  type Keyword,
  numberOf,
  OBJECT_KEYWORDS,
  type ObjectSchema,
  type Path,
  propertiesOf,
  refuse,
  show,
  stringList,
  type Type,
  typesOf,
} from "./schema-keywords.ts";

/** Of all patterns of a schema. */
const MAX_PATTERN_LENGTH = 16_384;

export class SchemaConverter {
  readonly #root: JsonSchema;
  readonly #alternatives: SchemaAlternatives;
  readonly #strict: boolean;
  readonly #grammar: Grammar;
  readonly #any: AnyJson;
  /** Each schema is converted once; those that contain themselves refer to their rule. */
  readonly #rules = new Map<object, string>();
  #patternLength = 0;

  /** @param strict an object has only the properties that its schema lists, unless it says otherwise */
  constructor(root: JsonSchema, strict: boolean, grammar: Grammar, any: AnyJson) {
    this.#root = root;
    this.#alternatives = new SchemaAlternatives(root);
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
    const checked = this.#alternatives.check(schema, path);
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
      const target = this.#alternatives.resolve(schema.$ref, [...path, "$ref"]);
      return this.#convert(target.schema, target.path, open);
    }
    if (says.length === 1 && says[0] === "anyOf") {
      const options = asList(schema.anyOf, [...path, "anyOf"]);
      return choice(options.map((option, index) => this.#convert(option, [...path, "anyOf", index], open)));
    }
    return choice(this.#alternatives.flatten(schema, path, open).map((keywords) => this.#values(keywords, path)));
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
    const onlyStrings = this.#alternatives.both({ type: "string" }, propertyNames.value);
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
    if (min > max) return NOTHING;
    let tail = EMPTY;
    if (max > prefix.length) {
      const [few, many] = [Math.max(0, min - prefix.length), max - prefix.length];
      const following = sequence(COMMA, item);
      if (prefix.length > 0) tail = repeat(following, few, many);
      else {
        const some = sequence(item, repeat(following, Math.max(0, few - 1), many - 1));
        tail = few === 0 ? optional(some) : some;
      }
    }
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
      return quoted(atPath(pattern.path, () => patternExpression(text, { forms: STRING_FORMS, isSearch: true })));
    }
    const known = FORMATS.get(asText(format!));
    if (known !== undefined) return quoted(patternExpression(known, { forms: STRING_FORMS, isSearch: false }));
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
    return keyword && numberOf(keyword);
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

function isAnyString(schema: unknown): boolean {
  if (schema === true) return true;
  if (typeof schema !== "object" || schema === null) return false;
  return Object.entries(schema).every(
    ([keyword, value]) => ANNOTATIONS.has(keyword) || (keyword === "type" && value === "string"),
  );
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
