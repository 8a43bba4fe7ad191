/**
 * Bodies of Anthropic's Messages API. Their content blocks become the messages of a chat: a turn of
 * the user with results of tools is one message for each result, and one for its text.
 */
import * as z from "zod";
import type { GenerationRequest, Prompt } from "../../generation/events.ts";
import type { ChatMessage } from "../../sessions/messages.ts";
import type { ToolCall } from "../../tokenizer/tool-messages.ts";
import {
  type Bounds,
  cacheSalt,
  defined,
  maxTokens,
  reasoningArguments,
  reasoningEffort,
  samplingFields,
  stopStrings,
  toSampling,
  toStopping,
} from "../openai/fields.ts";
import { REFUSED_ON_MESSAGES } from "../openai/refused-fields.ts";
import { type ToolChoice, toolList, toTools } from "../openai/tools.ts";
import { addIssue, addUnsupported, isRecord, refusals, report, show } from "../openai/validate.ts";

const MAX_MESSAGES = 10_000;

export function messagesBody(bounds: Bounds) {
  const { stop: _, ...sampling } = samplingFields(bounds);
  const schema = z.object({
    ...promptFields(),
    max_tokens: maxTokens(bounds),
    stop_sequences: stopStrings(bounds).optional(),
    stream: z.boolean().optional(),
    /** More than Anthropic's, as on the other endpoints. */
    ...sampling,
    cache_salt: cacheSalt().optional(),
  });
  return schema.register(refusals, REFUSED_ON_MESSAGES);
}

/** Counting needs no more than what is read; the rest may be there. */
export function countBody() {
  return z.object(promptFields()).register(refusals, REFUSED_ON_MESSAGES);
}

function promptFields() {
  const ignored = z.unknown().optional();
  return {
    model: z.string().optional(),
    messages: z.array(message()).min(1).max(MAX_MESSAGES),
    system: z
      .unknown()
      .transform((given, context) => (given === undefined ? undefined : (textOf(given, [], context) ?? z.NEVER)))
      .optional(),
    tools: toolList("messages").optional(),
    tool_choice: toolChoice().optional(),
    /** A budget bounds what a model may think; it need not use it, and none is enforced here. */
    thinking: z.object({ type: z.enum(["enabled", "adaptive", "between_tools", "disabled"]) }).optional(),
    output_config: z.object({ effort: reasoningEffort().nullish(), format: outputFormat().nullish() }).optional(),
    metadata: ignored,
    service_tier: ignored,
    cache_control: ignored,
  };
}

/** Its schema is checked where it is compiled. */
function outputFormat() {
  return z.object({ type: z.literal("json_schema"), schema: z.record(z.string(), z.unknown()) });
}

type CountBody = z.output<ReturnType<typeof countBody>>;
type MessagesBody = z.output<ReturnType<typeof messagesBody>>;

export interface MessagesTask {
  readonly request: Omit<GenerationRequest, "owner" | "signal">;
  readonly stream: boolean;
}

const NAMES = { prompts: "messages", maxTokens: "max_tokens", numLogprobs: "max_tokens" };

/** @throws `invalid_value` if fields contradict each other */
export function toMessagesTask(body: MessagesBody, { vocabSize }: Bounds): MessagesTask {
  const settings = { ...body, stop: body.stop_sequences };
  const format = body.output_config?.format;
  return {
    stream: body.stream ?? false,
    request: {
      ...promptRequest(body),
      numChoices: 1,
      bestOf: 1,
      sampling: toSampling(settings, vocabSize),
      ...toStopping(settings, body.max_tokens),
      echo: false,
      ...defined({ cacheSalt: body.cache_salt }),
      ...(format && { constraint: { type: "json_schema", schema: format.schema, strict: true } }),
    },
  };
}

/** @throws `invalid_value` if fields contradict each other */
export function promptRequest(body: CountBody) {
  return { names: NAMES, prompts: [toPrompt(body)], addSpecialTokens: false };
}

/** An answer continues the last message if that is the assistant's own. */
function toPrompt({ messages, system, thinking, output_config, tools, tool_choice: choice }: CountBody): Prompt {
  const instructions: ChatMessage[] = system === undefined ? [] : [{ role: "system", content: system }];
  const all = [...instructions, ...messages.flat()];
  const continueFinalMessage = all.at(-1)!.role === "assistant";
  const thinks = thinking && { enable_thinking: thinking.type !== "disabled", thinking: thinking.type !== "disabled" };
  const templateArguments = { ...reasoningArguments(output_config?.effort), ...thinks };
  return {
    type: "chat",
    messages: all,
    addGenerationPrompt: !continueFinalMessage,
    continueFinalMessage,
    ...(Object.keys(templateArguments).length > 0 && { templateArguments }),
    ...defined({
      tools: toTools({
        tools,
        ...defined({ tool_choice: choice?.choice, parallel_tool_calls: choice?.isParallel }),
      }),
    }),
  };
}

const CHOICES = { auto: "auto", any: "required", none: "none" } as const;

function toolChoice() {
  const schema = z.object({
    type: z.enum(["auto", "any", "tool", "none"]),
    name: z.string().optional(),
    disable_parallel_tool_use: z.boolean().optional(),
  });
  return schema.transform(({ type, name, disable_parallel_tool_use: isSingle = false }, context) => {
    const isParallel = !isSingle;
    if (type !== "tool") return { choice: { type: CHOICES[type] } satisfies ToolChoice, isParallel };
    if (name !== undefined) return { choice: { type: "function", name } satisfies ToolChoice, isParallel };
    addIssue(context, "is required", ["name"]);
    return z.NEVER;
  });
}

type Path = readonly (string | number)[];
type Block = Readonly<Record<string, unknown>>;

function message() {
  return z
    .object({ role: z.enum(["user", "assistant", "system"]), content: z.unknown() })
    .transform(({ role, content }, context): readonly ChatMessage[] => {
      if (typeof content === "string") return [{ role, content }];
      if (role === "system") {
        const text = textOf(content, ["content"], context);
        return text === undefined ? z.NEVER : [{ role, content: text }];
      }
      const blocks = blocksOf(content, ["content"], context);
      if (blocks === undefined) return z.NEVER;
      return (role === "user" ? fromUser(blocks, context) : fromAssistant(blocks, context)) ?? z.NEVER;
    });
}

/** @returns undefined if a problem was reported */
function fromUser(blocks: readonly Block[], context: z.RefinementCtx): readonly ChatMessage[] | undefined {
  const results: ChatMessage[] = [];
  const texts: string[] = [];
  for (const [index, block] of blocks.entries()) {
    const path = ["content", index];
    if (block.type === "tool_result") {
      const id = textMember(block, "tool_use_id", path, context);
      const content = block.content === undefined ? "" : textOf(block.content, [...path, "content"], context);
      if (id === undefined || content === undefined) return undefined;
      results.push({ role: "tool", content, toolCallId: id });
      continue;
    }
    const text = textBlock(block, path, context);
    if (text === undefined) return undefined;
    texts.push(text);
  }
  if (texts.length === 0 && results.length > 0) return results;
  return [...results, { role: "user", content: texts.join("\n") }];
}

/** @returns undefined if a problem was reported */
function fromAssistant(blocks: readonly Block[], context: z.RefinementCtx): readonly ChatMessage[] | undefined {
  const texts: string[] = [];
  const thoughts: string[] = [];
  const toolCalls: ToolCall[] = [];
  for (const [index, block] of blocks.entries()) {
    const path = ["content", index];
    switch (block.type) {
      case "thinking": {
        const thinking = textMember(block, "thinking", path, context);
        if (thinking === undefined) return undefined;
        thoughts.push(thinking);
        break;
      }
      case "redacted_thinking": // another model's, and encrypted
        break;
      case "tool_use": {
        const [id, name] = [textMember(block, "id", path, context), textMember(block, "name", path, context)];
        const { input } = block;
        if (id === undefined || name === undefined) return undefined;
        if (!isRecord(input)) {
          return report(context, input === undefined ? "is required" : `must be an object; got ${show(input)}`, [
            ...path,
            "input",
          ]);
        }
        toolCalls.push({ id, name, arguments: JSON.stringify(input) });
        break;
      }
      default: {
        const text = textBlock(block, path, context);
        if (text === undefined) return undefined;
        texts.push(text);
      }
    }
  }
  const reasoning = thoughts.join("\n");
  return [
    {
      role: "assistant",
      content: texts.join("\n"),
      ...(reasoning !== "" && { reasoning }),
      ...(toolCalls.length > 0 && { toolCalls }),
    },
  ];
}

/** A string, or the texts of a list of text blocks. @returns undefined if a problem was reported */
function textOf(content: unknown, path: Path, context: z.RefinementCtx): string | undefined {
  if (typeof content === "string") return content;
  const blocks = blocksOf(content, path, context);
  if (blocks === undefined) return undefined;
  const texts: string[] = [];
  for (const [index, block] of blocks.entries()) {
    const text = textBlock(block, [...path, index], context);
    if (text === undefined) return undefined;
    texts.push(text);
  }
  return texts.join("\n");
}

function blocksOf(content: unknown, path: Path, context: z.RefinementCtx): readonly Block[] | undefined {
  if (content === undefined) return report(context, "is required", path);
  if (!Array.isArray(content)) {
    return report(context, `must be a string or a list of content blocks; got ${show(content)}`, path);
  }
  const bad = content.findIndex((block) => !isRecord(block) || typeof block.type !== "string");
  if (bad === -1) return content as readonly Block[];
  return report(context, `must be an object with a type; got ${show(content[bad])}`, [...path, bad]);
}

function textBlock(block: Block, path: Path, context: z.RefinementCtx): string | undefined {
  if (block.type === "text") return textMember(block, "text", path, context);
  const message = `${show(block.type)} is not supported: this model reads text only`;
  addUnsupported(context, message, [...path, "type"]);
  return undefined;
}

function textMember(block: Block, name: string, path: Path, context: z.RefinementCtx): string | undefined {
  const value = block[name];
  if (typeof value === "string") return value;
  return report(context, value === undefined ? "is required" : `must be a string; got ${show(value)}`, [...path, name]);
}
