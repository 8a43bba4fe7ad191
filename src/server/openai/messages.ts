/** Chat messages and their text parts, for chat completions and for the items of a Responses input. */
import * as z from "zod";
import type { ChatMessage } from "../../generation/events.ts";
import { addIssue, addUnsupported, isRecord, show } from "./validate.ts";

const ROLES = ["system", "developer", "user", "assistant", "tool", "function"] as const;
const MAX_MESSAGES = 10_000;

/** The `type`s under which chat and Responses carry plain text. */
const TEXT_PART_TYPES: ReadonlySet<unknown> = new Set(["text", "input_text", "output_text"]);

export function chatMessages() {
  return z
    .array(
      z.object({
        role: z.enum(ROLES),
        content: messageContent(),
        name: z.string().max(256).nullish(),
        tool_calls: toolCalls(),
      }),
    )
    .min(1)
    .max(MAX_MESSAGES)
    .transform((messages) => messages.map(toChatMessage));
}

/** A string, or text parts; several parts are joined by a line feed, as vLLM and llama.cpp do. */
export function messageContent() {
  return z.unknown().transform((value, context): string => {
    if (typeof value === "string") return value;
    if (value === undefined || value === null) {
      addIssue(context, "is required");
      return z.NEVER;
    }
    if (!Array.isArray(value)) {
      addIssue(context, `must be a string or a list of text parts; got ${show(value)}`);
      return z.NEVER;
    }
    const texts: string[] = [];
    for (const [index, part] of value.entries()) {
      const problem = partProblem(part);
      if (problem?.unsupported) addUnsupported(context, problem.message, [index, "type"]);
      else if (problem) addIssue(context, problem.message, [index, ...problem.path]);
      if (problem) return z.NEVER;
      texts.push((part as { text: string }).text);
    }
    return texts.join("\n");
  });
}

/** `developer` is OpenAI's newer name for `system`; chat templates know the old one. */
export function toChatMessage(message: {
  role: string;
  content: string;
  name?: string | null | undefined;
}): ChatMessage {
  return {
    role: message.role === "developer" ? "system" : message.role,
    content: message.content,
    ...(message.name == null ? {} : { name: message.name }),
  };
}

function partProblem(part: unknown): { message: string; path: string[]; unsupported?: true } | undefined {
  if (!isRecord(part)) return { message: `must be an object with type and text; got ${show(part)}`, path: [] };
  if (typeof part.type !== "string") return { message: `must be a string; got ${show(part.type)}`, path: ["type"] };
  if (!TEXT_PART_TYPES.has(part.type)) {
    return { message: `${show(part.type)} is not supported: this model reads text only`, path: [], unsupported: true };
  }
  if (typeof part.text !== "string") return { message: `must be a string; got ${show(part.text)}`, path: ["text"] };
  return undefined;
}

function toolCalls() {
  return z
    .unknown()
    .superRefine((value, context) => {
      if (value === undefined || value === null || (Array.isArray(value) && value.length === 0)) return;
      addUnsupported(context, "is not supported: this model calls no tools", []);
    })
    .optional();
}
