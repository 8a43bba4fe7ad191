/**
 * The tools of a request, which of them may be called, and how they are shown again: chat wraps a
 * function into an object of its own, responses do not, and Anthropic's messages have no functions
 * but tools with an input schema.
 */
import * as z from "zod";
import type { Tool, Tools } from "../../generation/events.ts";
import { addUnsupported, formatPath, invalid, isRecord, refuse, report, show } from "./validate.ts";

const MAX_TOOLS = 128;
const NAME = /^[a-zA-Z0-9_-]{1,64}$/;
const NO_PARAMETERS = { type: "object", properties: {} };

export type ToolStyle = "chat" | "responses" | "messages";

type Path = readonly (string | number)[];

/** Which tools may be called, without the tools themselves. */
export type ToolChoice =
  | { readonly type: "none" | "auto" | "required" }
  | { readonly type: "function"; readonly name: string }
  | { readonly type: "allowed_tools"; readonly mode: "auto" | "required"; readonly names: readonly string[] };

export function toolFields(style: ToolStyle) {
  return {
    tools: toolList(style).optional(),
    tool_choice: z
      .unknown()
      .transform((choice, context) => parseChoice(choice, style, context))
      .optional(),
    parallel_tool_calls: z.boolean().optional(),
  };
}

export function toolList(style: ToolStyle) {
  return z
    .array(z.unknown())
    .max(MAX_TOOLS)
    .transform((tools, context) => parseTools(tools, style, context));
}

export type ToolBody = z.output<z.ZodObject<ReturnType<typeof toolFields>>>;

/**
 * @returns undefined if there are none
 * @throws `invalid_value` for a choice that the tools do not allow
 */
export function toTools({ tools = [], tool_choice: choice, parallel_tool_calls: parallel = true }: ToolBody) {
  const type = choice?.type ?? "auto";
  if (tools.length === 0) {
    if (type === "none" || type === "auto") return undefined;
    throw invalid("tool_choice", "needs tools");
  }
  return { definitions: tools, ...allowedBy(choice ?? { type: "auto" }, tools, parallel) } satisfies Tools;
}

/** As a response repeats them. */
export function shownTools(tools: readonly Tool[]) {
  return tools.map(({ name, description = null, parameters, strict }) => {
    return { type: "function", name, description, parameters, strict };
  });
}

export function shownChoice(choice: ToolChoice | undefined): string | Readonly<Record<string, unknown>> {
  switch (choice?.type) {
    case undefined:
      return "auto";
    case "function":
      return choice;
    case "allowed_tools":
      return { type: choice.type, mode: choice.mode, tools: choice.names.map((name) => ({ type: "function", name })) };
    default:
      return choice!.type;
  }
}

function allowedBy(choice: ToolChoice, tools: readonly Tool[], parallel: boolean): Omit<Tools, "definitions"> {
  switch (choice.type) {
    case "none":
      return { allowed: [], isRequired: false, parallel };
    case "auto":
    case "required":
      return { allowed: tools, isRequired: choice.type === "required", parallel };
    case "function":
      return { allowed: [find(choice.name, tools)], isRequired: true, parallel: false };
    case "allowed_tools": {
      const allowed = [...new Set(choice.names)].map((name) => find(name, tools));
      return { allowed, isRequired: choice.mode === "required", parallel };
    }
  }
}

function find(name: string, tools: readonly Tool[]): Tool {
  const found = tools.find((tool) => tool.name === name);
  if (found !== undefined) return found;
  throw invalid("tool_choice", `names ${show(name)}, which is not among the ${tools.length} tools`);
}

function parseTools(tools: readonly unknown[], style: ToolStyle, context: z.RefinementCtx): readonly Tool[] {
  const parsed: Tool[] = [];
  const names = new Set<string>();
  for (const [index, given] of tools.entries()) {
    const tool = parseTool(given, style, [index], context);
    if (tool === undefined) return z.NEVER;
    if (names.has(tool.name)) {
      return refuse(context, `is the name of two tools: ${show(tool.name)}`, [index, ...inside(style), "name"]);
    }
    names.add(tool.name);
    parsed.push(tool);
  }
  return parsed;
}

/** @returns undefined if a problem was reported */
function parseTool(given: unknown, style: ToolStyle, path: Path, context: z.RefinementCtx): Tool | undefined {
  if (!isRecord(given)) return report(context, `must be an object; got ${show(given)}`, path);
  const isTool =
    style === "messages"
      ? isCustom(given.type, [...path, "type"], context)
      : isFunction(given.type, [...path, "type"], context);
  if (!isTool) return undefined;
  const at = [...path, ...inside(style)];
  const schemaName = style === "messages" ? "input_schema" : "parameters";
  const fields = style === "chat" ? given.function : given;
  if (!isRecord(fields)) {
    return report(context, fields === undefined ? "is required" : `must be an object; got ${show(fields)}`, at);
  }
  const name = parseName(fields.name, [...at, "name"], context);
  const parameters = parseParameters(fields[schemaName], [...at, schemaName], context);
  if (name === undefined || parameters === undefined) return undefined;
  const { description = null, strict = null } = fields;
  if (description !== null && typeof description !== "string") {
    return report(context, `must be a string; got ${show(description)}`, [...at, "description"]);
  }
  if (strict !== null && typeof strict !== "boolean") {
    return report(context, `must be a boolean; got ${show(strict)}`, [...at, "strict"]);
  }
  const field = formatPath(["tools", ...at, schemaName]);
  return { name, ...(description !== null && { description }), parameters, strict: strict ?? false, field };
}

function isFunction(type: unknown, path: Path, context: z.RefinementCtx): boolean {
  if (type === "function") return true;
  if (typeof type === "string") addUnsupported(context, `${show(type)} is not supported: tools are functions`, path);
  else report(context, type === undefined ? "is required" : `must be "function"; got ${show(type)}`, path);
  return false;
}

/** Tools that a server would run have types of their own. */
function isCustom(type: unknown, path: Path, context: z.RefinementCtx): boolean {
  if (type === undefined || type === null || type === "custom") return true;
  addUnsupported(context, `${show(type)} is not supported: the client runs all tools, of type "custom"`, path);
  return false;
}

function parseName(name: unknown, path: Path, context: z.RefinementCtx): string | undefined {
  if (typeof name === "string" && NAME.test(name)) return name;
  if (name === undefined) return report(context, "is required", path);
  const rule = 'must be of 1 to 64 letters, digits, "_" and "-"';
  const shown = typeof name === "string" && name.length > 64 ? `${name.length} characters` : show(name);
  return report(context, `${rule}; got ${shown}`, path);
}

/** As far as it can be told without compiling it. */
function parseParameters(given: unknown, path: Path, context: z.RefinementCtx): Tool["parameters"] | undefined {
  if (given === undefined || given === null) return NO_PARAMETERS;
  if (!isRecord(given)) return report(context, `must be a JSON schema; got ${show(given)}`, path);
  const { type, properties, required } = given;
  if (type !== undefined && type !== "object") {
    return report(context, `must be "object", as arguments are; got ${show(type)}`, [...path, "type"]);
  }
  if (properties !== undefined && !isRecord(properties)) {
    return report(context, `must be an object; got ${show(properties)}`, [...path, "properties"]);
  }
  for (const [name, schema] of Object.entries(properties ?? {})) {
    if (isRecord(schema) || typeof schema === "boolean") continue;
    return report(context, `must be a JSON schema; got ${show(schema)}`, [...path, "properties", name]);
  }
  const isList = Array.isArray(required) && required.every((name) => typeof name === "string");
  if (required === undefined || isList) return given;
  return report(context, `must be a list of strings; got ${show(required)}`, [...path, "required"]);
}

function parseChoice(given: unknown, style: ToolStyle, context: z.RefinementCtx): ToolChoice | undefined {
  if (given === undefined) return undefined;
  if (given === "none" || given === "auto" || given === "required") return { type: given };
  if (!isRecord(given)) return refuse(context, `must be "none", "auto", "required" or an object; got ${show(given)}`);
  switch (given.type) {
    case "function": {
      const name = nameOf(given, style, [], context);
      return name === undefined ? z.NEVER : { type: "function", name };
    }
    case "allowed_tools": {
      const path = style === "chat" ? ["allowed_tools"] : [];
      const fields = style === "chat" ? given.allowed_tools : given;
      return parseAllowed(isRecord(fields) ? fields : {}, style, path, context) ?? z.NEVER;
    }
    default:
      addUnsupported(context, `${show(given.type)} is not supported: use "function" or "allowed_tools"`, ["type"]);
      return z.NEVER;
  }
}

function parseAllowed(
  { mode, tools }: Readonly<Record<string, unknown>>,
  style: ToolStyle,
  path: Path,
  context: z.RefinementCtx,
): ToolChoice | undefined {
  if (mode !== "auto" && mode !== "required") {
    return report(context, `must be "auto" or "required"; got ${show(mode)}`, [...path, "mode"]);
  }
  if (!Array.isArray(tools) || tools.length === 0 || tools.length > MAX_TOOLS) {
    return report(context, `must be a list of 1 to ${MAX_TOOLS} tools; got ${show(tools)}`, [...path, "tools"]);
  }
  const names: string[] = [];
  for (const [index, tool] of tools.entries()) {
    const at = [...path, "tools", index];
    if (!isRecord(tool)) return report(context, `must be an object; got ${show(tool)}`, at);
    if (!isFunction(tool.type, [...at, "type"], context)) return undefined;
    const name = nameOf(tool, style, at, context);
    if (name === undefined) return undefined;
    names.push(name);
  }
  return { type: "allowed_tools", mode, names };
}

function nameOf(given: Readonly<Record<string, unknown>>, style: ToolStyle, path: Path, context: z.RefinementCtx) {
  const at = [...path, ...inside(style), "name"];
  const fields = style === "chat" ? given.function : given;
  const name = isRecord(fields) ? fields.name : undefined;
  if (typeof name === "string") return name;
  return report(context, name === undefined ? "is required" : `must be a string; got ${show(name)}`, at);
}

function inside(style: ToolStyle): Path {
  return style === "chat" ? ["function"] : [];
}
