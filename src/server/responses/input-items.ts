/** A response's `input`: a string or a list of message items, read into messages and kept as it can be listed again. */
import * as z from "zod";
import type { ChatMessage } from "../../sessions/messages.ts";
import { leftOpen, messageTexts, toChatMessage } from "../openai/messages.ts";
import { addIssue, addUnsupported, isRecord, show } from "../openai/validate.ts";

const MAX_INPUT_ITEMS = 10_000;

export interface ResponseInput {
  readonly messages: readonly ChatMessage[];
  /** One a message. */
  readonly items: readonly Omit<InputItem, "id">[];
}

/** JSON-serialisable. */
export interface InputItem {
  readonly id: string;
  readonly role: "system" | "developer" | "user" | "assistant";
  /** One a content part. */
  readonly texts: readonly string[];
}

const item = z
  .object({
    role: z.enum(["system", "developer", "user", "assistant"]),
    content: z.unknown().optional(),
    refusal: z.string().nullish(),
    ...leftOpen(),
  })
  .transform((message, context) => {
    const texts = messageTexts(message, context);
    return texts === undefined ? z.NEVER : { role: message.role, texts, message: toChatMessage(message, texts) };
  });

/** A string is one user message; otherwise a list of message items. */
export function parseInput(value: unknown, context: z.RefinementCtx): ResponseInput {
  if (typeof value === "string" && value !== "") {
    return { messages: [{ role: "user", content: value }], items: [{ role: "user", texts: [value] }] };
  }
  if (value === undefined || value === null) {
    addIssue(context, "is required");
    return z.NEVER;
  }
  if (value === "" || (Array.isArray(value) && value.length === 0)) {
    addIssue(context, "must not be empty");
    return z.NEVER;
  }
  if (!Array.isArray(value) || value.length > MAX_INPUT_ITEMS) {
    addIssue(context, `must be a string or a list of at most ${MAX_INPUT_ITEMS} items; got ${show(value)}`);
    return z.NEVER;
  }
  const messages: ChatMessage[] = [];
  const items: Omit<InputItem, "id">[] = [];
  for (const [index, raw] of value.entries()) {
    if (isRecord(raw) && raw.type != null && raw.type !== "message") {
      addUnsupported(context, `${show(raw.type)} is not supported: only message items are`, [index, "type"]);
      return z.NEVER;
    }
    const parsed = item.safeParse(raw);
    if (!parsed.success) {
      const issue = parsed.error.issues[0]!;
      context.issues.push({ ...issue, path: [index, ...issue.path], input: raw } as (typeof context.issues)[number]);
      return z.NEVER;
    }
    const { message, ...given } = parsed.data;
    messages.push(message);
    items.push(given);
  }
  return { messages, items };
}

/** The items' ids follow from the response's: they need no place of their own. */
export function withIds(items: ResponseInput["items"], responseId: string): InputItem[] {
  const stem = responseId.replace(/^resp_/, "msg_");
  return items.map((given, index) => ({ id: `${stem}_in${index}`, ...given }));
}

export function toInputItemObject({ id, role, texts }: InputItem) {
  return {
    id,
    type: "message",
    role,
    status: "completed",
    content: texts.map((text) =>
      role === "assistant" ? { type: "output_text", text, annotations: [] } : { type: "input_text", text },
    ),
  };
}
