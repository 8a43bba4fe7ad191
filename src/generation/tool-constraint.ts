/** What the calls in an answer must match: where they are required, and where tools are strict. */
import type { Constraint, Tag } from "../grammar/constraint.ts";
import type { ToolFormat } from "../tokenizer/tool-formats.ts";
import type { Tool, Tools } from "./events.ts";

/** @returns undefined if the model may write what it likes */
export function toolConstraint(tools: Tools, format: ToolFormat): Constraint | undefined {
  const { allowed, isRequired, parallel } = tools;
  const stopAfterFirst = !parallel || format.isSingle;
  if (isRequired) {
    const { begin, separator, end } = format;
    return {
      type: "tag_list",
      begin,
      tags: allowed.map((tool) => tagOf(tool, format)),
      separator,
      end,
      stopAfterFirst,
    };
  }
  const strict = allowed.filter((tool) => tool.strict);
  if (strict.length === 0) return undefined;
  // What begins any call is followed by one; without such a mark only calls of strict tools show.
  const { open } = format;
  const tags = (open === undefined ? strict : allowed).map((tool) => {
    const { begin, end, ...rest } = tagOf(tool.strict ? tool : { ...tool, parameters: {} }, format);
    return { ...rest, begin: format.begin + begin, end: end + format.end };
  });
  const triggers = open !== undefined && tags.every(({ begin }) => begin.startsWith(open)) ? [open] : begins(tags);
  return { type: "tagged", tags, triggers, atLeastOne: false, stopAfterFirst };
}

function tagOf({ name, parameters, strict }: Tool, format: ToolFormat): Tag {
  return { ...format.call(name), schema: { type: "object", ...parameters }, strict };
}

function begins(tags: readonly Tag[]): string[] {
  return tags.map(({ begin }) => begin);
}
