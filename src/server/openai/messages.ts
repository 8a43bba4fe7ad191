/**
 * Chat messages and their text parts, for chat completions and for the input items of a response.
 */
import * as z from "zod";
import type { ChatMessage } from "../../sessions/messages.ts";
import type { ToolCall } from "../../tokenizer/tool-messages.ts";
import { addIssue, addUnsupported, isRecord, refuse, show, unsupportedUnless } from "./validate.ts";

const ROLES = ["system", "developer", "user", "assistant", "tool", "function"] as const;
const MAX_MESSAGES = 10_000;
const MAX_CALL_ID_LENGTH = 256;

/** The types of text parts in chat and in responses. */
const TEXT_PART_TYPES: ReadonlySet<unknown> = new Set(["text", "input_text", "output_text"]);

export function chatMessages() {
  return z
    .array(
      z
        .object({
          role: z.enum(ROLES),
          content: z.unknown().optional(),
          refusal: z.string().nullish(),
          name: z.string().max(256).nullish(),
          reasoning_content: z.string().nullish(),
          reasoning: z.string().nullish(),
          tool_calls: toolCalls(),
          tool_call_id: z.string().min(1).max(MAX_CALL_ID_LENGTH).nullish(),
          function_call: unsupportedUnless((value) => value === null, "use tool_calls"),
          audio: unsupportedUnless((value) => value === null, "this model reads and writes text only"),
          ...leftOpen(),
        })
        .transform((message, context) => {
          const texts = messageTexts(message, context);
          if (message.role !== "assistant" && message.tool_calls?.length) {
            addIssue(context, `must be empty: only an assistant calls tools; got ${message.tool_calls.length}`, [
              "tool_calls",
            ]);
          }
          return texts === undefined ? z.NEVER : toChatMessage(message, texts);
        }),
    )
    .min(1)
    .max(MAX_MESSAGES);
}

/**
 * `developer` is OpenAI's newer name for `system`; chat templates know the old one. Parts are
 * joined as in vLLM.
 */
export function toChatMessage(given: GivenMessage, texts: readonly string[]): ChatMessage {
  const { role, name } = given;
  // Two names for one thing.
  const reasoning = role === "assistant" ? given.reasoning_content || given.reasoning : undefined;
  return {
    role: role === "developer" ? "system" : role,
    content: texts.join("\n"),
    ...(name == null ? {} : { name }),
    ...(reasoning && { reasoning }),
    ...(given.tool_calls?.length && { toolCalls: given.tool_calls }),
    ...(role === "tool" && given.tool_call_id != null && { toolCallId: given.tool_call_id }),
  };
}

/** By hand: zod takes three times as long, and a body may hold thousands. */
function toolCalls() {
  return z
    .unknown()
    .transform((given, context): readonly ToolCall[] => {
      if (given === undefined || given === null) return [];
      if (!Array.isArray(given)) return refuse(context, `must be a list; got ${show(given)}`);
      const calls: ToolCall[] = [];
      for (const [index, item] of given.entries()) {
        const call = parseToolCall(item, index, context);
        if (call === undefined) return z.NEVER;
        calls.push(call);
      }
      return calls;
    })
    .optional();
}

/** @returns undefined if a problem was reported */
function parseToolCall(given: unknown, index: number, context: z.RefinementCtx): ToolCall | undefined {
  if (!isRecord(given)) return refuse(context, `must be an object; got ${show(given)}`, [index]);
  if (given.type !== undefined && given.type !== "function") {
    addUnsupported(context, `${show(given.type)} is not supported: tools are functions`, [index, "type"]);
    return undefined;
  }
  const { function: called } = given;
  if (!isRecord(called)) return refuse(context, missing(called, "an object"), [index, "function"]);
  return parseCall({ id: given.id, name: called.name, arguments: called.arguments }, context, {
    id: [index, "id"],
    name: [index, "function", "name"],
    arguments: [index, "function", "arguments"],
  });
}

type Path = readonly (string | number)[];

/**
 * @param paths where its parts are
 * @returns undefined if a problem was reported
 */
export function parseCall(
  { id, name, arguments: json }: { readonly [Part in keyof ToolCall]: unknown },
  context: z.RefinementCtx,
  paths: { readonly [Part in keyof ToolCall]: Path },
): ToolCall | undefined {
  const problem = callIdProblem(id);
  if (problem !== undefined) return refuse(context, problem, paths.id);
  if (typeof name !== "string" || name === "") return refuse(context, missing(name, "a string"), paths.name);
  const text = isRecord(json) ? JSON.stringify(json) : json;
  if (typeof text !== "string") return refuse(context, missing(json, "a string or an object"), paths.arguments);
  return { id: id as string, name, arguments: text.trim() === "" ? "{}" : text };
}

export function callIdProblem(id: unknown): string | undefined {
  if (typeof id === "string" && id !== "" && id.length <= MAX_CALL_ID_LENGTH) return undefined;
  const shown = typeof id === "string" ? `${id.length} characters` : show(id);
  return id === undefined ? "is required" : `must be a string of 1 to ${MAX_CALL_ID_LENGTH} characters; got ${shown}`;
}

function missing(given: unknown, what: string): string {
  return given === undefined ? "is required" : `must be ${what}; got ${show(given)}`;
}

export interface GivenMessage {
  readonly role: string;
  readonly content?: unknown;
  readonly refusal?: string | null | undefined;
  readonly name?: string | null | undefined;
  readonly reasoning_content?: string | null | undefined;
  readonly reasoning?: string | null | undefined;
  readonly tool_calls?: readonly ToolCall[] | undefined;
  readonly tool_call_id?: string | null | undefined;
}

/**
 * The text, or the texts of all parts. An assistant's refusal counts as its text; an assistant
 * without text, such as one that called a tool, has an empty turn.
 * @param field what the client calls the content
 * @returns undefined if a problem was reported
 */
export function messageTexts(
  { role, content, refusal }: GivenMessage,
  context: z.RefinementCtx,
  field = "content",
): string[] | undefined {
  const report = (message: string, path: readonly (string | number)[]): undefined => {
    addIssue(context, message, [field, ...path]);
  };
  const isAssistant = role === "assistant";
  if (typeof content === "string") return [content];
  if (isAssistant && (content === undefined || content === null)) return refusal == null ? [] : [refusal];
  if (content === undefined) return report("is required", []);
  if (!Array.isArray(content)) {
    return report(`must be a string or a list of text parts; got ${show(content)}`, []);
  }
  const texts: string[] = [];
  for (const [index, part] of content.entries()) {
    if (!isRecord(part)) return report(`must be an object with type and text; got ${show(part)}`, [index]);
    const { type } = part;
    if (typeof type !== "string") return report(`must be a string; got ${show(type)}`, [index, "type"]);
    const key = isAssistant && type === "refusal" ? "refusal" : "text";
    if (key === "text" && !TEXT_PART_TYPES.has(type)) {
      addUnsupported(context, `${show(type)} is not supported: this model reads text only`, [field, index, "type"]);
      return undefined;
    }
    const text = part[key];
    if (typeof text !== "string") return report(`must be a string; got ${show(text)}`, [index, key]);
    texts.push(text);
  }
  return texts;
}

/** How Mistral and Moonshot ask to continue the last message. */
export function leftOpen() {
  const field = unsupportedUnless((value) => value === null || value === false, "use continue_final_message");
  return { prefix: field, partial: field };
}
