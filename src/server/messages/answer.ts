/**
 * Answers of Anthropic's Messages API: a message of content blocks, whole or as a stream of events.
 * Thinking, text and calls of tools are blocks of their own.
 */
import type { DeltaEvent, GenerationEvent, GenerationUsage } from "../../generation/events.ts";
import type { ToolCall } from "../../tokenizer/tool-messages.ts";
import { type AcceptedEvent, type ChoiceEnd, type Collected, choiceEnd } from "../openai/choices.ts";
import { toMessagesError } from "./errors.ts";

export interface MessageHead {
  readonly id: string;
  readonly model: string;
}

/** For `answerJson`. */
export function messageAnswer(head: MessageHead, { choices, usage }: Collected) {
  const { text, reasoning, calls, ...end } = choices[0]!;
  const content = [
    ...(reasoning === "" ? [] : [{ type: "thinking", thinking: reasoning, signature: "" }]),
    ...(text === "" ? [] : [{ type: "text", text, citations: null }]),
    ...calls.map(toToolUse),
  ];
  return { ...emptyMessage(head), content, ...stopMembers(end), usage: toMessagesUsage(usage) };
}

function toToolUse({ id, name, arguments: json }: ToolCall) {
  return { type: "tool_use", id, name, input: parsedInput(json), caller: { type: "direct" } };
}

/** What was cut off is no object; Anthropic's clients take nothing else. */
function parsedInput(json: string): object {
  try {
    return JSON.parse(json) as object;
  } catch {
    return {};
  }
}

function emptyMessage({ id, model }: MessageHead) {
  return { id, type: "message", role: "assistant", model, content: [], container: null, diagnostics: null };
}

const STOP_REASONS = { stop: "end_turn", length: "max_tokens", tool_calls: "tool_use" } as const;

function stopMembers({ reason, stoppedBy }: ChoiceEnd) {
  const sequence = typeof stoppedBy === "string" ? stoppedBy : null;
  const stopReason = sequence === null ? STOP_REASONS[reason] : "stop_sequence";
  return { stop_reason: stopReason, stop_sequence: sequence, stop_details: null };
}

/** Of the input tokens those that no cache held are counted apart from those that one did. */
function toMessagesUsage(
  usage: Pick<GenerationUsage, "promptTokens" | "cachedTokens" | "completionTokens" | "reasoningTokens">,
) {
  const { reasoningTokens } = usage;
  return {
    input_tokens: usage.promptTokens - usage.cachedTokens,
    cache_creation_input_tokens: 0,
    cache_read_input_tokens: usage.cachedTokens,
    output_tokens: usage.completionTokens,
    output_tokens_details: reasoningTokens === undefined ? null : { thinking_tokens: reasoningTokens },
    ...{ cache_creation: null, server_tool_use: null, service_tier: null, inference_geo: null, speed: null },
  };
}

type BlockType = "thinking" | "text" | "tool_use";

const BLOCK_TYPES = { reasoning: "thinking", call: "tool_use" } as const;

/** Renders the events of one answer, in order. */
export class MessageEvents {
  readonly #head: MessageHead;
  readonly #emit: (type: string, json: string) => void;
  #block: BlockType | undefined;
  #numBlocks = 0;
  #end: ChoiceEnd | undefined;

  constructor(head: MessageHead, emit: (type: string, json: string) => void) {
    this.#head = head;
    this.#emit = emit;
  }

  /** @throws `aborted` if the generation was cut off */
  push(event: GenerationEvent): void {
    switch (event.type) {
      case "accepted":
        this.#start(event);
        return;
      case "prompt":
        return;
      case "delta":
        this.#delta(event);
        return;
      case "finished":
        this.#end = choiceEnd(event);
        this.#endBlock();
        return;
      case "usage": {
        const end = this.#end!;
        const delta = { ...stopMembers(end), container: null };
        this.#event({ type: "message_delta", delta, usage: toMessagesUsage(event.usage) });
        this.#event({ type: "message_stop" });
        return;
      }
    }
  }

  /** Nothing is held back. */
  flush(): void {}

  fail(error: unknown): void {
    this.#event(toMessagesError(error).body);
  }

  #start({ prompts }: AcceptedEvent): void {
    const { numTokens: promptTokens, cachedTokens } = prompts[0]!;
    const usage = toMessagesUsage({ promptTokens, cachedTokens, completionTokens: 0 });
    const message = { ...emptyMessage(this.#head), stop_reason: null, stop_sequence: null, stop_details: null, usage };
    this.#event({ type: "message_start", message });
    this.#event({ type: "ping" });
  }

  #delta({ part, text, call }: DeltaEvent): void {
    const type = part === undefined ? "text" : BLOCK_TYPES[part];
    if (call !== undefined) this.#beginBlock("tool_use", { type, ...call, input: {}, caller: { type: "direct" } });
    if (text === "") return;
    if (this.#block !== type) {
      this.#beginBlock(
        type,
        type === "thinking" ? { type, thinking: "", signature: "" } : { type, text: "", citations: null },
      );
    }
    const index = this.#numBlocks - 1;
    this.#event({ type: "content_block_delta", index, delta: deltaOf(type, text) });
  }

  #beginBlock(type: BlockType, content_block: object): void {
    this.#endBlock();
    this.#block = type;
    this.#event({ type: "content_block_start", index: this.#numBlocks++, content_block });
  }

  #endBlock(): void {
    if (this.#block === undefined) return;
    this.#block = undefined;
    this.#event({ type: "content_block_stop", index: this.#numBlocks - 1 });
  }

  #event(event: { readonly type: string; readonly [member: string]: unknown }): void {
    this.#emit(event.type, JSON.stringify(event));
  }
}

function deltaOf(type: BlockType, text: string): object {
  switch (type) {
    case "thinking":
      return { type: "thinking_delta", thinking: text };
    case "text":
      return { type: "text_delta", text };
    case "tool_use":
      return { type: "input_json_delta", partial_json: text };
  }
}
