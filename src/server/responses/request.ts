/**
 * The body of `POST /v1/responses` and of the WebSocket's `response.create`: its schema, its input
 * items, and its way into a `GenerationRequest`.
 */
import { setImmediate } from "node:timers/promises";
import * as z from "zod";
import type { GenerationRequest } from "../../generation/events.ts";
import type { ConversationKey } from "../../sessions/conversation-store.ts";
import type { ChatMessage } from "../../sessions/messages.ts";
import type { ToolCall } from "../../tokenizer/tool-messages.ts";
import { textFormat } from "../openai/constraints.ts";
import {
  type Bounds,
  cacheSalt,
  defined,
  ignoredFields,
  MAX_LOGPROBS,
  maxTokens,
  personaName,
  reasoningArguments,
  reasoningField,
  samplingFields,
  sessionId,
  toSampling,
  toStopping,
} from "../openai/fields.ts";
import { callIdProblem, leftOpen, messageTexts, parseCall, toChatMessage } from "../openai/messages.ts";
import { REFUSED_ON_RESPONSES } from "../openai/refused-fields.ts";
import { shownChoice, shownTools, toolFields, toTools } from "../openai/tools.ts";
import {
  addIssue,
  addUnsupported,
  invalid,
  isRecord,
  refusals,
  refuse,
  show,
  unsupportedUnless,
} from "../openai/validate.ts";
import type { InputItem, ResponseSettings } from "./response.ts";

export const MAX_INPUT_ITEMS = 10_000;
/** Reading them takes some milliseconds. */
const ITEMS_AT_ONCE = 512;
const MAX_METADATA_PAIRS = 16;
const MAX_METADATA_KEY = 64;
const MAX_METADATA_VALUE = 512;
const MAX_ECHOED_LENGTH = 512;
const LOGPROBS_INCLUDE = "message.output_text.logprobs";
/** Tokens and log-probabilities: five events and the record each hold all of them, some 5 MB. */
const MAX_LOGPROB_ENTRIES = 65_536;

export function responseBody(bounds: Bounds) {
  const schema = z.object({
    model: z.string().optional(),
    input: z.unknown().transform(parseInput),
    instructions: z.string().optional(),
    previous_response_id: z.string().min(1).max(128).optional(),
    previous_session_id: sessionId().optional(),
    conversation: z.union([conversationId(), z.object({ id: conversationId() }).transform(({ id }) => id)]).optional(),
    store: z.boolean().optional(),
    stream: z.boolean().optional(),
    stream_options: z.object({ include_obfuscation: z.boolean().nullish() }).optional(),
    max_output_tokens: maxTokens(bounds).optional(),
    metadata: metadata().optional(),
    truncation: z.enum(["auto", "disabled"]).optional(),
    text: z.object({ format: textFormat(), verbosity: z.unknown().optional() }).optional(),
    top_logprobs: z.int().min(0).max(MAX_LOGPROBS).optional(),
    include: z.array(z.string()).max(32).optional(),
    background: z.boolean().optional(),
    generate: z.boolean().optional(),
    max_tool_calls: z.int().min(1).optional(),
    reasoning: reasoningField().optional(),
    persona: personaName().optional(),
    cache_salt: cacheSalt().optional(),
    ...toolFields("responses"),
    ...samplingFields(bounds),
    response_format: unsupportedUnless((value) => isRecord(value) && value.type === "text", "use text.format"),
    ...ignoredFields(),
  });
  return schema.register(refusals, REFUSED_ON_RESPONSES);
}

export type ResponseBody = z.output<ReturnType<typeof responseBody>>;

export interface ResponseTask {
  readonly request: Omit<GenerationRequest, "owner" | "signal" | "resumeFrom" | "saveAs">;
  readonly stream: boolean;
  readonly input: ResponseInput["items"];
  readonly settings: ResponseSettings;
  /** What it continues in place of a previous response: a copy of a session, or a persona. */
  readonly beginsFrom: ConversationKey | undefined;
}

/** @throws `invalid_value` if fields contradict each other */
export function toResponseTask(body: ResponseBody, bounds: Bounds): ResponseTask {
  const logprobs = body.include?.includes(LOGPROBS_INCLUDE) ?? false;
  if (body.top_logprobs !== undefined && body.top_logprobs > 0 && !logprobs) {
    throw invalid("top_logprobs", `needs ${show(LOGPROBS_INCLUDE)} in include`);
  }
  if (body.previous_session_id !== undefined && body.previous_response_id !== undefined) {
    throw invalid("previous_session_id", "can't be given together with previous_response_id");
  }
  if (body.conversation !== undefined) {
    for (const other of ["previous_response_id", "previous_session_id"] as const) {
      if (body[other] !== undefined) throw invalid(other, "can't be given together with conversation");
    }
    if (body.store === false) throw invalid("store", "must be true with conversation, which stores what is said in it");
  }
  const other = body.previous_response_id ?? body.previous_session_id ?? body.conversation;
  if (body.persona !== undefined && other !== undefined) {
    throw invalid("persona", "can't be given together with previous_response_id, previous_session_id or conversation");
  }
  const tools = toTools(body);
  const background = body.background ?? false;
  const generates = body.generate ?? true;
  if (background && body.store === false) throw invalid("background", "needs store to be true: it is retrieved later");
  const sampling = toSampling(body, bounds.vocabSize);
  const format = body.text?.format;
  return {
    stream: body.stream ?? false,
    input: body.input.items,
    beginsFrom: beginsFrom(body),
    settings: {
      instructions: body.instructions ?? null,
      previousResponseId: body.previous_response_id ?? null,
      ...defined({ conversationId: body.conversation }),
      maxOutputTokens: body.max_output_tokens ?? null,
      temperature: sampling.temperature,
      topP: sampling.topP,
      presencePenalty: sampling.presencePenalty,
      frequencyPenalty: sampling.frequencyPenalty,
      maxToolCalls: body.max_tool_calls ?? null,
      user: echoed(body.user),
      safetyIdentifier: echoed(body.safety_identifier),
      promptCacheKey: echoed(body.prompt_cache_key),
      topLogprobs: body.top_logprobs ?? 0,
      truncation: body.truncation ?? "disabled",
      store: body.store ?? true,
      background,
      generates,
      metadata: body.metadata ?? {},
      ...(format && { textFormat: format.given }),
      parallelToolCalls: body.parallel_tool_calls ?? true,
      ...(body.reasoning?.effort && { reasoningEffort: body.reasoning.effort }),
      toolChoice: shownChoice(body.tool_choice),
      tools: shownTools(body.tools ?? []),
    },
    request: {
      names: {
        prompts: "input",
        maxTokens: "max_output_tokens",
        numLogprobs: "top_logprobs",
        ...(format && { constraint: `text.format${format.field}` }),
      },
      ...(format && { constraint: format.constraint }),
      prompts: [
        {
          type: "chat",
          messages: body.input.messages,
          // Without an answer the last message stays open for the next response to continue.
          addGenerationPrompt: generates,
          continueFinalMessage: !generates,
          ...defined({ instructions: body.instructions, tools }),
          ...(body.reasoning?.effort && { templateArguments: reasoningArguments(body.reasoning.effort) }),
        },
      ],
      numChoices: 1,
      bestOf: 1,
      sampling,
      ...toStopping(body, generates ? body.max_output_tokens : 0),
      addSpecialTokens: false,
      echo: false,
      scoresStopToken: false,
      ...(logprobs ? { numLogprobs: body.top_logprobs ?? 0, maxAnswerTokens: MAX_LOGPROB_ENTRIES } : {}),
      ...defined({
        cacheSalt: body.cache_salt,
        truncatePromptTokens: body.truncation === "auto" ? bounds.maxPromptTokens : undefined,
      }),
    },
  };
}

function beginsFrom({ previous_session_id: session, persona }: ResponseBody): ConversationKey | undefined {
  if (session !== undefined) return { type: "session", id: session };
  return persona === undefined ? undefined : { type: "persona", id: persona };
}

/** Of a field without effect, which may hold anything. */
function echoed(value: unknown): string | null {
  return typeof value === "string" && value.length <= MAX_ECHOED_LENGTH ? value : null;
}

export function metadata() {
  // Counted first: checking thousands of pairs takes long.
  const few = z.unknown().superRefine((value, context) => {
    const numPairs = isRecord(value) ? Object.keys(value).length : 0;
    if (numPairs <= MAX_METADATA_PAIRS) return;
    addIssue(context, `must have at most ${MAX_METADATA_PAIRS} pairs; got ${numPairs}`);
  });
  const pairs = z.record(z.string(), z.string().max(MAX_METADATA_VALUE)).superRefine((value, context) => {
    const long = Object.keys(value).find((key) => key.length > MAX_METADATA_KEY);
    if (long === undefined) return;
    addIssue(context, `must have keys of at most ${MAX_METADATA_KEY} characters; got one of ${long.length}`);
  });
  return few.pipe(pairs);
}

export interface ResponseInput {
  readonly messages: readonly ChatMessage[];
  readonly items: readonly GivenItem[];
}

type GivenItem = WithoutId<InputItem>;
/** Of each member of a union. */
type WithoutId<T> = T extends unknown ? Omit<T, "id"> : never;

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

const reasoningTexts = z.array(z.object({ type: z.string().nullish(), text: z.string() })).nullish();

/**
 * What an assistant thought before the message or the calls that follow. A summary stands in for
 * what is not there.
 */
const reasoningItem = z.object({
  summary: reasoningTexts,
  content: reasoningTexts,
  encrypted_content: unsupportedUnless((value) => value === null || value === "", "this server encrypts nothing"),
});

const callItem = z.unknown().transform((given, context) => {
  const { call_id: id, name, arguments: json, status } = given as Readonly<Record<string, unknown>>;
  if (typeof (status ?? "") !== "string") return refuse(context, `must be a string; got ${show(status)}`, ["status"]);
  const call = parseCall({ id, name, arguments: json }, context, CALL_PATHS);
  // Cut off or malformed: nothing was called.
  return call === undefined ? z.NEVER : { call, isMade: status !== "incomplete" };
});

const CALL_PATHS = { id: ["call_id"], name: ["name"], arguments: ["arguments"] };

const outputItem = z.unknown().transform((given, context) => {
  const { call_id: callId, output } = given as Readonly<Record<string, unknown>>;
  const problem = callIdProblem(callId);
  if (problem !== undefined) return refuse(context, problem, ["call_id"]);
  const texts = messageTexts({ role: "tool", content: output }, context, "output");
  return texts === undefined ? z.NEVER : { callId: callId as string, texts };
});

const ITEM_TYPES: ReadonlySet<unknown> = new Set(["message", "reasoning", "function_call", "function_call_output"]);

/** A string is one user message; everything else is a list of items. */
function parseInput(value: unknown, context: z.RefinementCtx): ResponseInput {
  if (typeof value === "string" && value !== "") {
    return { messages: [{ role: "user", content: value }], items: [{ role: "user", texts: [value] }] };
  }
  if (value === undefined || value === null) return refuse(context, "is required");
  if (value === "" || (Array.isArray(value) && value.length === 0)) return refuse(context, "must not be empty");
  if (!Array.isArray(value) || value.length > MAX_INPUT_ITEMS) {
    return refuse(context, `must be a string or a list of at most ${MAX_INPUT_ITEMS} items; got ${show(value)}`);
  }
  const input = readItems(value, context);
  if (context.issues.length > 0) return z.NEVER;
  if (input.messages.length === 0)
    return refuse(context, "must have at least one message, or reasoning with text; got none");
  return input;
}

/** Of a conversation: any number of items, also none. */
export function itemList() {
  const list = z.array(z.unknown()).max(MAX_INPUT_ITEMS);
  return list.transform((items, context) => readItems(items, context).items);
}

/**
 * Of items that have been read before, as `toInputItemObject` and responses give them. Lets others
 * run in between.
 */
export async function messagesOf(
  items: readonly (object & { readonly type?: unknown })[],
): Promise<readonly ChatMessage[]> {
  const input = new InputReader();
  for (const [index, item] of items.entries()) {
    if (index % ITEMS_AT_ONCE === ITEMS_AT_ONCE - 1) await setImmediate();
    input.read(item.type, item);
  }
  return input.end().messages;
}

function readItems(items: readonly unknown[], context: z.RefinementCtx): ResponseInput {
  const input = new InputReader();
  for (const [index, raw] of items.entries()) {
    const type = isRecord(raw) ? (raw.type ?? "message") : "message";
    if (!ITEM_TYPES.has(type)) {
      const known = [...ITEM_TYPES].join(", ");
      addUnsupported(context, `${show(type)} is not supported: items are of type ${known}`, [index, "type"]);
      return z.NEVER;
    }
    const issue = input.read(type, raw);
    if (issue === undefined) continue;
    context.issues.push({ ...issue, path: [index, ...issue.path], input: raw } as (typeof context.issues)[number]);
    return z.NEVER;
  }
  return input.end();
}

function conversationId() {
  return z.string().min(1).max(128);
}

/** Reasoning, text and calls that follow each other are one message of the assistant. */
class InputReader {
  readonly #messages: ChatMessage[] = [];
  readonly #items: GivenItem[] = [];
  #reasoning: string[] = [];
  /** Of the assistant's message that came last, if calls may still follow. */
  #calls: ToolCall[] | undefined;

  /** @returns what is wrong with the item */
  read(type: unknown, raw: unknown): z.core.$ZodIssue | undefined {
    switch (type) {
      case "reasoning": {
        const { data, error } = reasoningItem.safeParse(raw);
        if (data === undefined) return error.issues[0];
        const texts = (data.content?.length ? data.content : (data.summary ?? [])).map(({ text }) => text);
        this.#calls = undefined;
        this.#reasoning.push(...texts.filter((text) => text !== ""));
        this.#items.push({ role: "assistant", type, texts });
        return undefined;
      }
      case "function_call": {
        const { data, error } = callItem.safeParse(raw);
        if (data === undefined) return error.issues[0];
        const { id: callId, ...call } = data.call;
        this.#items.push({ type, callId, ...call });
        if (!data.isMade) return undefined;
        if (this.#calls === undefined) this.#addAnswer({ role: "assistant", content: "" });
        this.#calls!.push(data.call);
        return undefined;
      }
      case "function_call_output": {
        const { data, error } = outputItem.safeParse(raw);
        if (data === undefined) return error.issues[0];
        this.#add({ role: "tool", content: data.texts.join("\n"), toolCallId: data.callId });
        this.#items.push({ type, ...data });
        return undefined;
      }
      default: {
        const { data, error } = item.safeParse(raw);
        if (data === undefined) return error.issues[0];
        const { message, ...given } = data;
        if (message.role === "assistant") this.#addAnswer(message);
        else this.#add(message);
        this.#items.push(given);
        return undefined;
      }
    }
  }

  end(): ResponseInput {
    this.#endReasoning();
    const messages = this.#messages.map(({ toolCalls = [], ...message }) => {
      return toolCalls.length === 0 ? message : { ...message, toolCalls };
    });
    return { messages, items: this.#items };
  }

  #addAnswer(message: ChatMessage): void {
    const reasoning = this.#reasoning.join("\n");
    this.#reasoning = [];
    this.#calls = [];
    this.#messages.push({ ...message, ...(reasoning !== "" && { reasoning }), toolCalls: this.#calls });
  }

  #add(message: ChatMessage): void {
    this.#endReasoning();
    this.#calls = undefined;
    this.#messages.push(message);
  }

  /** Of an answer that did not come any further. */
  #endReasoning(): void {
    if (this.#reasoning.length > 0) this.#addAnswer({ role: "assistant", content: "" });
  }
}

const ID_PREFIXES = { message: "msg", reasoning: "rs", function_call: "fc", function_call_output: "fco" } as const;

/** The ids of items follow from the id of their response. */
export function withIds(items: ResponseInput["items"], responseId: string): InputItem[] {
  const stem = responseId.replace(/^resp_/, "");
  return items.map((given, index) => ({ id: `${ID_PREFIXES[given.type ?? "message"]}_${stem}_in${index}`, ...given }));
}

/** @throws `invalid_value` */
export function checkEventNumber(param: string, value: unknown): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  throw invalid(param, `must be the sequence_number of an event, an integer from 0; got ${show(value)}`);
}
