/**
 * What generation tests share: requests with defaults, a generator around an engine, and the fold
 * of its events.
 */
import type { SequenceEngine } from "../../src/generation/admission.ts";
import type { GenerationLimits } from "../../src/generation/check-request.ts";
import type { GenerationEvent, GenerationRequest, GenerationUsage, Prompt } from "../../src/generation/events.ts";
import { Generator } from "../../src/generation/generator.ts";
import type { PrefixStates } from "../../src/prefix/prefix-reuse.ts";
import { GREEDY } from "../../src/sampling/params.ts";
import type { Conversation } from "../../src/sessions/conversation.ts";
import type { ChatMessage } from "../../src/sessions/messages.ts";
import { messagesOf } from "../../src/sessions/messages.ts";
import { MemoryStore } from "../../src/sessions/stores/memory-store.ts";
import type { Snapshot } from "../../src/sessions/stores/snapshot.ts";
import type { StateStore } from "../../src/sessions/stores/store.ts";
import { loadTokenizer } from "../../src/tokenizer/load.ts";
import type { ReasoningFormat } from "../../src/tokenizer/reasoning-tags.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { fakeManifest } from "./fake-runner.ts";
import { BYTE_FALLBACK_CONFIG, byteFallbackJson, writeTokenizer } from "./tiny-tokenizers.ts";

export const EOS = 2;
export const VOCAB_SIZE = 400;

/** SentencePiece-like, with BOS, and the chat template given. */
export async function tinyTokenizer(chatTemplate?: string): Promise<Tokenizer> {
  const config = { ...BYTE_FALLBACK_CONFIG, ...(chatTemplate !== undefined && { chat_template: chatTemplate }) };
  return (await loadTokenizer(await writeTokenizer({ json: byteFallbackJson(), config })))!;
}

export function makeGenerator(
  engine: SequenceEngine,
  tokenizer: Tokenizer,
  options: {
    limits?: Partial<GenerationLimits>;
    store?: StateStore;
    prefixCache?: PrefixStates;
    reasoning?: ReasoningFormat;
    sleep?: (ms: number, signal: AbortSignal) => Promise<void>;
  } = {},
): Generator {
  let lastId = 0;
  let nowMs = 1000;
  return new Generator({
    engine,
    tokenizer,
    manifest: { ...fakeManifest(VOCAB_SIZE), eosTokenIds: [EOS] },
    store: options.store ?? new MemoryStore({ maxBytes: 1e8 }),
    ...(options.prefixCache && { prefixCache: options.prefixCache }),
    ...(options.reasoning && { reasoning: options.reasoning }),
    ...(options.sleep && { sleep: options.sleep }),
    limits: { maxPromptTokens: 1000, maxOutputTokens: 100, ...options.limits },
    newId: () => `id-${++lastId}`,
    nowMs: () => nowMs++,
  });
}

export const text = (value: string): Prompt => ({ type: "text", text: value });
export const tokens = (...tokenIds: number[]): Prompt => ({ type: "tokens", tokenIds });

export function chat(...messages: (ChatMessage | string)[]): Extract<Prompt, { type: "chat" }> {
  return {
    type: "chat",
    messages: messages.map((message) => (typeof message === "string" ? { role: "user", content: message } : message)),
    addGenerationPrompt: true,
    continueFinalMessage: false,
  };
}

export function request(
  given: Partial<GenerationRequest> & { readonly prompts: readonly Prompt[] },
): GenerationRequest {
  const isChat = given.prompts[0]?.type === "chat";
  return {
    names: {
      prompts: isChat ? "messages" : "prompt",
      maxTokens: "max_tokens",
      numLogprobs: "logprobs",
    },
    numChoices: 1,
    bestOf: given.numChoices ?? 1,
    sampling: GREEDY,
    maxTokens: 8,
    minTokens: 0,
    stopStrings: [],
    stopTokenIds: [],
    ignoreEos: false,
    includeStopString: false,
    skipSpecialTokens: true,
    addSpecialTokens: !isChat,
    echo: false,
    owner: "",
    signal: new AbortController().signal,
    ...given,
  };
}

export interface Outcome {
  readonly events: readonly GenerationEvent[];
  readonly accepted: Extract<GenerationEvent, { type: "accepted" }>;
  readonly choices: readonly FoldedChoice[];
  readonly usage: GenerationUsage;
}

export interface FoldedChoice {
  text: string;
  readonly tokenIds: number[];
  readonly logprobs: number[];
  prompt?: Extract<GenerationEvent, { type: "prompt" }>;
  finished?: Extract<GenerationEvent, { type: "finished" }>;
}

/**
 * Reads to the end and checks what holds for every stream: its order, and that each choice ends
 * exactly once.
 */
export async function fold(stream: AsyncIterable<GenerationEvent>): Promise<Outcome> {
  const events: GenerationEvent[] = [];
  const choices: FoldedChoice[] = [];
  for await (const event of stream) {
    events.push(event);
    if (!("index" in event)) continue;
    const choice = choices[event.index] ?? { text: "", tokenIds: [], logprobs: [] };
    choices[event.index] = choice;
    if (choice.finished) throw new Error(`choice ${event.index} goes on after its end`);
    if (event.type === "prompt") choice.prompt = event;
    else if (event.type === "finished") choice.finished = event;
    else {
      choice.text += event.text;
      choice.tokenIds.push(...event.tokenIds);
      choice.logprobs.push(...[...(event.logprobs ?? [])].map(({ logprob }) => logprob));
    }
  }
  const [first, last] = [events[0], events.at(-1)];
  if (first?.type !== "accepted" || last?.type !== "usage") throw new Error("accepted comes first, usage last");
  for (const [index, choice] of choices.entries()) if (!choice?.finished) throw new Error(`choice ${index} has no end`);
  return { events, accepted: first, choices, usage: last.usage };
}

/** Turns of the event loop until it is so. Fails rather than wait for ever. */
export async function until(isSo: () => boolean): Promise<void> {
  for (let turn = 0; turn < 10_000; turn++) {
    if (isSo()) return;
    await new Promise((resolve) => setImmediate(resolve));
  }
  throw new Error(`it never came to: ${isSo}`);
}

/** The messages of a stored session. */
export function storedMessages(tokenizer: Tokenizer, { conversation, tokenIds }: Snapshot): ChatMessage[] {
  const { spans, numPreambleTokens } = conversation as Conversation;
  return messagesOf(tokenizer, spans, tokenIds, numPreambleTokens);
}
