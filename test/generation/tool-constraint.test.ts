/** What calls must match, and that an answer which does is read as these calls. */
import { describe, expect, it } from "vitest";
import type { Tool, Tools } from "../../src/generation/events.ts";
import { ToolCallSplitter } from "../../src/generation/tool-calls.ts";
import { toolConstraint } from "../../src/generation/tool-constraint.ts";
import { findToolFormat, type ToolFormatName } from "../../src/tokenizer/tool-formats.ts";

const parameters = { properties: { city: { type: "string" } } };
const LOOSE: Tool = { name: "loose", parameters, strict: false, field: "tools[0]" };
const STRICT: Tool = { name: "strict", parameters, strict: true, field: "tools[1]" };
const tools = (given: Partial<Tools>): Tools => {
  const all = [LOOSE, STRICT];
  return { definitions: all, allowed: all, isRequired: false, parallel: true, ...given };
};

const FORMATS: [ToolFormatName, string][] = [
  ["hermes", ""],
  ["llama3_json", ""],
  ["mistral", ""],
  ["mistral", "[ARGS]"],
  ["json", ""],
];

describe.each(FORMATS)("%s %s", (name, template) => {
  const format = findToolFormat(name, template);

  it("of required calls all match, in the form that is read", () => {
    const constraint = toolConstraint(tools({ isRequired: true }), format)!;
    if (constraint.type !== "tag_list") throw new Error(constraint.type);
    const { begin, tags, separator, end, stopAfterFirst } = constraint;
    expect(tags.map(({ schema, strict }) => ({ schema, strict }))).toEqual([
      { schema: { type: "object", ...parameters }, strict: false },
      { schema: { type: "object", ...parameters }, strict: true },
    ]);
    expect(stopAfterFirst).toBe(format.isSingle);
    const calls = tags.map((tag) => `${tag.begin}{"city": "x"}${tag.end}`);
    const text = begin + (stopAfterFirst ? calls[0] : calls.join(separator)) + end;
    const splitter = new ToolCallSplitter({ format, names: new Set(["loose", "strict"]), isSingle: false });
    const pieces = [...splitter.push(text), ...splitter.flush({ isCut: false })];
    expect(pieces.filter(({ type }) => type === "content")).toEqual([]);
    expect(splitter.numCalls).toBe(stopAfterFirst ? 1 : 2);
  });

  it("one call is one", () => {
    const named = toolConstraint(tools({ isRequired: true, allowed: [LOOSE], parallel: false }), format);
    expect(named).toMatchObject({ type: "tag_list", stopAfterFirst: true, tags: [{ strict: false }] });
  });

  it("calls and an answer that must match are alternatives", () => {
    const answer = { type: "json_object" } as const;
    const either = toolConstraint(tools({}), format, answer)!;
    expect(either).toMatchObject({ type: "any_of", constraints: [{ type: "tag_list" }, answer] });
    expect(toolConstraint(tools({ allowed: [] }), format, answer)).toEqual(answer);
    expect(toolConstraint(tools({ isRequired: true }), format, answer)).toMatchObject({ type: "tag_list" });
  });

  it("of free calls those of strict tools match", () => {
    expect(toolConstraint(tools({ allowed: [LOOSE] }), format)).toBeUndefined();
    expect(toolConstraint(tools({ allowed: [] }), format)).toBeUndefined();
    const constraint = toolConstraint(tools({}), format)!;
    if (constraint.type !== "tagged") throw new Error(constraint.type);
    const { tags, triggers, atLeastOne } = constraint;
    expect(atLeastOne).toBe(false);
    expect(tags.find(({ begin }) => begin.includes("strict"))).toMatchObject({
      schema: { type: "object", ...parameters },
      strict: true,
    });
    for (const { begin } of tags) expect(triggers.some((trigger) => begin.startsWith(trigger))).toBe(true);
    const loose = tags.find(({ begin }) => begin.includes("loose"));
    if (loose !== undefined) expect(loose).toMatchObject({ schema: { type: "object" }, strict: false });
    const text = tags.map((tag) => `${tag.begin}{"city": "x"}${tag.end}`).join("\n");
    const splitter = new ToolCallSplitter({ format, names: new Set(["loose", "strict"]), isSingle: false });
    splitter.push(text);
    expect(splitter.numCalls).toBe(tags.length);
  });
});
