/**
 * What the content of an answer must match: a JSON value, a regular expression, a grammar, or text
 * with tagged parts. Knows neither tokens nor how a constraint is enforced.
 */

/** As JSON Schema defines it: `true` matches any value. */
export type JsonSchema = boolean | { readonly [keyword: string]: unknown };

/** With a model that reasons, it begins to apply after the reasoning. */
export type Constraint =
  | { readonly type: "json_object" }
  /** `strict`: objects have no other properties than the schema's, unless it says otherwise. */
  | { readonly type: "json_schema"; readonly schema: JsonSchema; readonly strict: boolean }
  /** Matches the whole content. */
  | { readonly type: "regex"; readonly pattern: string }
  | { readonly type: "choice"; readonly choices: readonly string[] }
  /** EBNF as xgrammar reads it; begins with the rule `root`. */
  | { readonly type: "grammar"; readonly grammar: string }
  /** Free text until it contains a trigger; from there on one of the tags that begin with it. */
  | {
      readonly type: "tagged";
      readonly tags: readonly Tag[];
      readonly triggers: readonly string[];
      /** The content begins with a tag. */
      readonly atLeastOne: boolean;
      /** It ends with the first tag. */
      readonly stopAfterFirst: boolean;
    }
  /** Nothing but tags: `begin tag (separator tag)* end`. */
  | {
      readonly type: "tag_list";
      readonly begin: string;
      readonly tags: readonly Tag[];
      readonly separator: string;
      readonly end: string;
      /** Exactly one tag. */
      readonly stopAfterFirst: boolean;
    }
  | { readonly type: "any_of"; readonly constraints: readonly Constraint[] };

/** `begin`, a JSON value that matches the schema, `end`. */
export interface Tag {
  readonly begin: string;
  readonly schema: JsonSchema;
  readonly strict: boolean;
  readonly end: string;
  /** The schema's name in the request, for error messages. Default: the constraint's. */
  readonly field?: string;
}
