/**
 * What an answer's content must match, in the spelling of OpenAI (`response_format`, `text.format`),
 * vLLM (`structured_outputs`, `guided_…`) and llama.cpp (`grammar`, `json_schema`). Schemas are
 * checked where they become grammars.
 */
import * as z from "zod";
import type { GenerationRequest } from "../../generation/events.ts";
import type { Constraint, JsonSchema } from "../../grammar/constraint.ts";
import { invalid, isRecord, refuse, show, unsupportedUnless } from "./validate.ts";

const MAX_CHOICES = 10_000;
const MAX_PATTERN_LENGTH = 4096;
const MAX_GRAMMAR_LENGTH = 65_536;
const OTHER_WHITE_SPACE = "white space between the parts of JSON is fixed";

/** A constraint, and the field or part of it that a path in it begins at. */
export interface Given {
  readonly constraint: Constraint;
  readonly field: string;
}

export type ConstrainedRequest = Pick<GenerationRequest, "constraint"> & { readonly field?: string };

/** On completions and chat, beside `response_format`. */
export function constraintFields() {
  return {
    response_format: responseFormat(),
    structured_outputs: structuredOutputs().optional(),
    guided_json: jsonSchema().optional(),
    guided_regex: pattern().optional(),
    guided_choice: choices().optional(),
    guided_grammar: grammar().optional(),
    guided_whitespace_pattern: unsupportedUnless((value) => value === null || value === "", OTHER_WHITE_SPACE),
    grammar: grammar().optional(),
    json_schema: jsonSchema().optional(),
  };
}

type ConstraintBody = z.output<z.ZodObject<ReturnType<typeof constraintFields>>>;

/** @throws `invalid_value` if there are several */
export function toConstraint(body: ConstraintBody): ConstrainedRequest {
  const { response_format: format, structured_outputs: outputs } = body;
  const given: Given[] = [];
  if (format !== undefined) given.push({ ...format, field: `response_format${format.field}` });
  if (outputs !== undefined) given.push({ ...outputs, field: `structured_outputs${outputs.field}` });
  const add = (field: keyof ConstraintBody, constraint: Constraint | undefined) => {
    if (constraint !== undefined) given.push({ constraint, field });
  };
  add("guided_json", body.guided_json && strictly(body.guided_json.schema));
  add("guided_regex", body.guided_regex);
  add("guided_choice", body.guided_choice);
  add("guided_grammar", body.guided_grammar);
  add("grammar", body.grammar);
  add("json_schema", body.json_schema && loosely(body.json_schema.schema));
  const [first, second] = given;
  if (first === undefined) return {};
  if (second !== undefined) throw invalid(second.field, `can't be given together with ${first.field}`);
  return first;
}

/** OpenAI's, in chat and completions: `json_schema` holds name, schema and `strict`. */
function responseFormat() {
  return formatOf((value, context) => {
    const inner = value.json_schema;
    if (!isRecord(inner)) return refuse(context, `must be an object; got ${show(inner)}`, ["json_schema"]);
    return schemaFormat(inner, context, ["json_schema"]);
  });
}

/** `text.format` of a response: name, schema and `strict` stand beside the type. */
export function textFormat() {
  return formatOf((value, context) => schemaFormat(value, context, []));
}

/** With the object itself, to repeat it. */
export interface GivenFormat extends Given {
  readonly given: Record<string, unknown>;
}

/** Undefined for type text. */
function formatOf(schemaOf: (value: Readonly<Record<string, unknown>>, context: z.RefinementCtx) => Given) {
  return z
    .unknown()
    .transform((value, context): GivenFormat | undefined => {
      if (value === undefined || value === null) return undefined;
      if (!isRecord(value)) return refuse(context, `must be an object with a type; got ${show(value)}`);
      switch (value.type) {
        case "text":
          return undefined;
        case "json_object":
          return { constraint: { type: "json_object" }, field: "", given: value };
        case "json_schema":
          return { ...schemaOf(value, context), given: value };
        default:
          return refuse(context, `must be "text", "json_object" or "json_schema"; got ${show(value.type)}`, ["type"]);
      }
    })
    .optional();
}

function schemaFormat(
  { schema = {}, strict = false }: Readonly<Record<string, unknown>>,
  context: z.RefinementCtx,
  path: readonly string[],
): Given {
  const isSwitch = typeof strict === "boolean" || strict === null;
  if (!isSwitch) return refuse(context, `must be a boolean; got ${show(strict)}`, [...path, "strict"]);
  if (!isSchema(schema)) return refuse(context, `must be a JSON schema; got ${show(schema)}`, [...path, "schema"]);
  const field = [...path, "schema"].map((name) => `.${name}`).join("");
  return { constraint: strict === true ? strictly(schema) : loosely(schema), field };
}

/** vLLM's: one of its members says what the answer matches. */
function structuredOutputs() {
  const isOff = (value: unknown) => value === null || value === false || value === "";
  return z
    .object({
      json: jsonSchema().nullish(),
      regex: pattern().nullish(),
      choice: choices().nullish(),
      grammar: grammar().nullish(),
      json_object: z.boolean().nullish(),
      structural_tag: unsupportedUnless(isOff, "describe the answer by json, regex, choice or grammar"),
      whitespace_pattern: unsupportedUnless(isOff, OTHER_WHITE_SPACE),
      disable_any_whitespace: z.boolean().nullish(),
      disable_additional_properties: z.boolean().nullish(),
      disable_fallback: z.boolean().nullish(),
    })
    .transform((given, context): Given | undefined => {
      const constraints: readonly [string, Constraint | null | undefined][] = [
        ["json", given.json && strictly(given.json.schema)],
        ["regex", given.regex],
        ["choice", given.choice],
        ["grammar", given.grammar],
        ["json_object", given.json_object ? { type: "json_object" } : undefined],
      ];
      const [first, second] = constraints.filter(([, constraint]) => constraint != null);
      if (second !== undefined) {
        return refuse(context, `can't be given together with ${first![0]}`, [second[0]]);
      }
      if (first === undefined) return refuse(context, "must have one of json, regex, choice, grammar, json_object");
      return { constraint: first[1]!, field: `.${first[0]}` };
    });
}

/** A schema, or its JSON as a string. In an object, since a schema may be `false`. */
function jsonSchema() {
  return z.unknown().transform((value, context): { readonly schema: JsonSchema } => {
    let schema = value;
    if (typeof value === "string") {
      try {
        schema = JSON.parse(value);
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        return refuse(context, `must be a JSON schema, or one as a string: ${why.slice(0, 128)}`);
      }
    }
    return isSchema(schema) ? { schema } : refuse(context, `must be a JSON schema; got ${show(value)}`);
  });
}

function isSchema(value: unknown): value is JsonSchema {
  return typeof value === "boolean" || isRecord(value);
}

function pattern() {
  const text = z.string().min(1).max(MAX_PATTERN_LENGTH);
  return text.transform((pattern): Constraint => ({ type: "regex", pattern }));
}

function grammar() {
  const text = z.string().min(1).max(MAX_GRAMMAR_LENGTH);
  return text.transform((grammar): Constraint => ({ type: "grammar", grammar }));
}

function choices() {
  const list = z.array(z.string()).min(1).max(MAX_CHOICES);
  return list.transform((choices): Constraint => ({ type: "choice", choices }));
}

/** As OpenAI's `strict` and vLLM have it: objects have no members that the schema does not list. */
function strictly(schema: JsonSchema): Constraint {
  return { type: "json_schema", schema, strict: true };
}

function loosely(schema: JsonSchema): Constraint {
  return { type: "json_schema", schema, strict: false };
}
