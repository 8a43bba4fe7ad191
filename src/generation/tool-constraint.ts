/**
 * What the calls in an answer must match: where they are required, where tools are strict, and
 * where the answer must match something itself.
 */
import type { Constraint, Tag } from "../grammar/constraint.ts";
import type { ToolFormat } from "../tokenizer/tool-formats.ts";
import type { Tool, Tools } from "./events.ts";

/**
 * @param answer what an answer without calls must match
 * @returns undefined if the model may write what it likes
 */
export function toolConstraint(tools: Tools, format: ToolFormat, answer?: Constraint): Constraint | undefined {
  const { allowed, isRequired, parallel } = tools;
  if (allowed.length === 0) return answer;
  const stopAfterFirst = !parallel || format.isSingle;
  if (isRequired) return listOf(allowed, format, stopAfterFirst);
  const free = allowed.map((tool) => (tool.strict ? tool : { ...tool, parameters: {} }));
  if (answer !== undefined) return { type: "any_of", constraints: [listOf(free, format, stopAfterFirst), answer] };
  const strict = allowed.filter((tool) => tool.strict);
  if (strict.length === 0) return undefined;
  // What begins any call is followed by one; without such a mark only calls of strict tools show.
  const { open } = format;
  const tags = (open === undefined ? strict : free).map((tool) => {
    const { begin, end, ...schema } = tagOf(tool, format);
    return { ...schema, begin: format.begin + begin, end: end + format.end };
  });
  const hasMark = open !== undefined && tags.every(({ begin }) => begin.startsWith(open));
  return { type: "tagged", tags, triggers: hasMark ? [open] : begins(tags), atLeastOne: false, stopAfterFirst };
}

function listOf(tools: readonly Tool[], format: ToolFormat, stopAfterFirst: boolean): Constraint {
  const { begin, separator, end } = format;
  return { type: "tag_list", begin, tags: tools.map((tool) => tagOf(tool, format)), separator, end, stopAfterFirst };
}

function tagOf({ name, parameters, strict, field }: Tool, format: ToolFormat): Tag {
  return { ...format.call(name), schema: { type: "object", ...parameters }, strict, field };
}

function begins(tags: readonly Tag[]): string[] {
  return tags.map(({ begin }) => begin);
}
