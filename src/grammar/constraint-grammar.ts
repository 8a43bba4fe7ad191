/** A constraint → its grammar. */
import { strict as assert } from "node:assert";
import { DenseMambaError } from "../errors.ts";
import type { Constraint, Tag } from "./constraint.ts";
import { parseEbnf } from "./ebnf.ts";
import {
  characters,
  choice,
  type Expression,
  Grammar,
  literal,
  type ProductiveGrammar,
  repeat,
  sequence,
  setOf,
} from "./expression.ts";
import { SchemaConverter } from "./json-schema.ts";
import { AnyJson, PLAIN_FORMS } from "./json-text.ts";
import { patternExpression } from "./regular-expression.ts";

/** Reasoning that may precede the content. */
export interface ReasoningPrefix {
  /** What is left to write of the opening tag; empty: the reasoning has begun. */
  readonly open: string;
  readonly close: string;
}

/** Characters and operators of a grammar. */
const MAX_NODES = 30_000;
/** White space between reasoning and content is not shown. */
const SPACES = characters(
  setOf([
    [0x09, 0x0a],
    [0x0d, 0x0d],
    [0x20, 0x20],
  ]),
);
const MAX_SPACES = 8;

/**
 * @throws `invalid_value`, `unsupported_value`; `param` is the path within the constraint, if the
 * fault is in one place of it, or all of its name within a tag that has a `field`
 */
export function constraintGrammar(constraint: Constraint, reasoning: ReasoningPrefix | undefined): ProductiveGrammar {
  const grammar = new Grammar(MAX_NODES, (maxNodes) => {
    return new DenseMambaError("unsupported_value", `is too large: its grammar has more than ${maxNodes} parts`);
  });
  try {
    const content = new ContentRules(grammar).convert(constraint);
    const start = reasoning === undefined ? content : afterReasoning(content, reasoning, grammar);
    const productive = grammar.productive(start);
    if (productive === undefined) throw new DenseMambaError("invalid_value", "matches no text at all");
    if (grammar.findLeftRecursion() === undefined) return productive;
  } catch (error) {
    // Its own recursion has gone too deep.
    if (error instanceof RangeError) throw new DenseMambaError("unsupported_value", "is nested too deeply");
    throw error;
  }
  throw new DenseMambaError("unsupported_value", "has a rule that begins with itself: left recursion is not supported");
}

class ContentRules {
  readonly #grammar: Grammar;
  #any: AnyJson | undefined;

  constructor(grammar: Grammar) {
    this.#grammar = grammar;
  }

  convert(constraint: Constraint): Expression {
    switch (constraint.type) {
      case "json_object":
        return this.#anyJson.object;
      case "json_schema":
        return this.#schema(constraint);
      case "regex":
        return patternExpression(constraint.pattern, { forms: PLAIN_FORMS, isSearch: false });
      case "choice":
        return this.#rule(choice(constraint.choices.map(literal)));
      case "grammar":
        return parseEbnf(constraint.grammar, this.#grammar);
      case "tagged":
        return this.#tagged(constraint);
      case "tag_list": {
        const { begin, tags, separator, end, stopAfterFirst } = constraint;
        const tag = this.#rule(choice(tags.map((one) => this.#tag(one))));
        const others = stopAfterFirst ? [] : [repeat(sequence(literal(separator), tag), 0)];
        return sequence(literal(begin), tag, ...others, literal(end));
      }
      case "any_of":
        return this.#rule(choice(constraint.constraints.map((one) => this.convert(one))));
    }
  }

  get #anyJson(): AnyJson {
    this.#any ??= new AnyJson(this.#grammar);
    return this.#any;
  }

  #schema({ schema, strict }: Pick<Tag, "schema" | "strict">): Expression {
    return new SchemaConverter(schema, strict, this.#grammar, this.#anyJson).convert();
  }

  #tag(tag: Tag, numWritten = 0): Expression {
    try {
      return sequence(literal(tag.begin.slice(numWritten)), this.#schema(tag), literal(tag.end));
    } catch (error) {
      if (!(error instanceof DenseMambaError) || tag.field === undefined) throw error;
      throw new DenseMambaError(error.code, error.message, { param: tag.field + (error.param ?? ""), cause: error });
    }
  }

  #tagged({ tags, triggers, atLeastOne, stopAfterFirst }: Extract<Constraint, { type: "tagged" }>): Expression {
    const first = this.#rule(choice(tags.map((tag) => this.#tag(tag))));
    if (atLeastOne && stopAfterFirst) return first;
    const rules = triggers.map((trigger) => {
      const begun = tags.filter(({ begin }) => begin.startsWith(trigger));
      const added = this.#rule(choice(begun.map((tag) => this.#tag(tag, trigger.length))));
      assert(added.type === "rule");
      return [trigger, added.name] as const;
    });
    const text = this.#rule({ type: "dispatch", triggers: new Map(rules), loops: !stopAfterFirst, mayEnd: true });
    return atLeastOne ? sequence(first, text) : text;
  }

  #rule(expression: Expression): Expression {
    return this.#grammar.add(expression);
  }
}

/** The content, after reasoning if there is any: a model may answer without. */
function afterReasoning(content: Expression, { open, close }: ReasoningPrefix, grammar: Grammar): Expression {
  const after = grammar.reserve();
  grammar.define(after, sequence(repeat(SPACES, 0, MAX_SPACES), content));
  const triggers = new Map([[close, after]]);
  const thought = grammar.add({ type: "dispatch", triggers, loops: false, mayEnd: false });
  return open === "" ? thought : choice([content, sequence(literal(open), thought)]);
}

/** The texts of tags: special tokens in them are allowed, which otherwise are not. */
export function tagTexts(constraint: Constraint, reasoning: ReasoningPrefix | undefined): string[] {
  const ofReasoning = reasoning === undefined ? [] : [reasoning.open, reasoning.close];
  if (constraint.type === "any_of") return constraint.constraints.flatMap((one) => tagTexts(one, reasoning));
  const ofTags = "tags" in constraint ? constraint.tags.flatMap(({ begin, end }) => [begin, end]) : [];
  const ofList = constraint.type === "tag_list" ? [constraint.begin, constraint.separator, constraint.end] : [];
  return [...ofReasoning, ...ofTags, ...ofList];
}
