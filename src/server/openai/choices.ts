/**
 * Answers of completions and chat, which differ in their JSON alone. The events of a generation
 * become the chunks of a stream, or are collected into one answer. Knows no transport.
 */
import { DenseMambaError } from "../../errors.ts";
import { CollectedDeltas } from "../../generation/collected-deltas.ts";
import type {
  DeltaEvent,
  DetailList,
  GenerationEvent,
  GenerationUsage,
  PromptEvent,
  TokenDetail,
} from "../../generation/events.ts";
import type { TokenNames } from "../../generation/token-details.ts";
import { numericMode } from "../../model/manifest.ts";
import type { ToolCall } from "../../tokenizer/tool-messages.ts";
import type { ServedModel, ServerDeps } from "../deps.ts";
import { toHttpError } from "./errors.ts";

export type AcceptedEvent = Extract<GenerationEvent, { type: "accepted" }>;
type FinishedEvent = Extract<GenerationEvent, { type: "finished" }>;

/** What every chunk of an answer repeats. */
export interface AnswerHead {
  readonly id: string;
  readonly createdS: number;
  readonly model: string;
  readonly fingerprint: string;
}

export function answerHead(deps: ServerDeps, idPrefix: "cmpl" | "chatcmpl"): AnswerHead {
  return {
    id: `${idPrefix}-${deps.newId()}`,
    createdS: Math.floor(deps.nowMs() / 1000),
    model: deps.model.name,
    fingerprint: systemFingerprint(deps.model),
  };
}

/**
 * Changes whenever the same seed may give another text: another checkpoint or another numeric mode.
 */
function systemFingerprint({ manifest }: ServedModel): string {
  return `fp_${manifest.modelHash.slice(0, 10)}_${manifest.precision}_${numericMode(manifest)}`;
}

export function headObject(head: AnswerHead, object: string) {
  return { id: head.id, object, created: head.createdS, model: head.model, system_fingerprint: head.fingerprint };
}

/** Of an answer that is still being streamed. */
class UsageSoFar {
  #promptTokens = 0;
  #cachedTokens = 0;
  #completionTokens = 0;

  accepted({ prompts }: AcceptedEvent): void {
    for (const { numTokens, cachedTokens } of prompts) {
      this.#promptTokens += numTokens;
      this.#cachedTokens += cachedTokens;
    }
  }

  add(numTokens: number): void {
    this.#completionTokens += numTokens;
  }

  get json(): string {
    return JSON.stringify({
      prompt_tokens: this.#promptTokens,
      completion_tokens: this.#completionTokens,
      total_tokens: this.#promptTokens + this.#completionTokens,
      prompt_tokens_details: { cached_tokens: this.#cachedTokens, cache_write_tokens: 0 },
    });
  }
}

/** `state_bytes` is ours: what the whole past of the conversation occupies, however long it is. */
export function toUsage(usage: GenerationUsage) {
  return {
    prompt_tokens: usage.promptTokens,
    completion_tokens: usage.completionTokens,
    total_tokens: usage.promptTokens + usage.completionTokens,
    // Caching costs nothing: no tokens count as written to a cache.
    prompt_tokens_details: { cached_tokens: usage.cachedTokens, cache_write_tokens: 0 },
    ...(usage.reasoningTokens !== undefined && {
      completion_tokens_details: { reasoning_tokens: usage.reasoningTokens },
    }),
    state_bytes: usage.stateBytes,
  };
}

export interface ChoiceEnd {
  readonly reason: "stop" | "tool_calls" | "length";
  readonly stoppedBy: string | number | undefined;
  /** In base64, if it was asked for. */
  readonly state?: string;
}

/** The members of a chunk that say whether its choice has ended. */
export function endJson(end: ChoiceEnd | undefined): string {
  if (end === undefined) return ',"finish_reason":null';
  const state = end.state === undefined ? "" : `,"state":"${end.state}"`;
  return `,"finish_reason":"${end.reason}","stop_reason":${JSON.stringify(end.stoppedBy ?? null)}${state}`;
}

/** The JSON of an endpoint's chunks, without its closing brace. */
export interface ChunkWriter {
  /** Whether a delta without text is worth a chunk. */
  readonly wantsEmptyDeltas: boolean;
  accepted(event: AcceptedEvent): void;
  prompt(event: PromptEvent): string | undefined;
  /** At least one. @param delta undefined only with an `end` */
  chunks(index: number, delta: DeltaEvent | undefined, end: ChoiceEnd | undefined): readonly string[];
  /** A chunk without choices, before its usage. */
  end(): string;
}

/** What a stream says of usage: nothing, at its end, or in each of its chunks too. */
export interface UsageOptions {
  readonly includeUsage: boolean;
  readonly showsUsageSoFar: boolean;
}

/**
 * Streams choices. A delta is held until the tick ends, so that the chunk which ends a choice can
 * carry its last text too. Deltas without text are left out, unless they carry something else.
 */
export class ChoiceStream {
  readonly #writer: ChunkWriter;
  readonly #options: UsageOptions;
  readonly #emit: (json: string) => void;
  readonly #usageSoFar = new UsageSoFar();
  /** At most one per choice. */
  readonly #held = new Map<number, DeltaEvent>();

  constructor(writer: ChunkWriter, options: UsageOptions, emit: (json: string) => void) {
    this.#writer = writer;
    this.#options = options;
    this.#emit = emit;
  }

  /**
   * May hold the event back until the next one or `flush`.
   * @throws `aborted` if the generation was cut off
   */
  push(event: GenerationEvent): void {
    switch (event.type) {
      case "accepted":
        this.#writer.accepted(event);
        this.#usageSoFar.accepted(event);
        return;
      case "prompt": {
        const chunk = this.#writer.prompt(event);
        if (chunk !== undefined) this.#emitAll([chunk]);
        return;
      }
      case "delta":
        this.#emitHeld(event.index);
        this.#usageSoFar.add(event.tokenIds.length);
        if (event.text !== "" || event.call || event.logprobs !== undefined || this.#writer.wantsEmptyDeltas) {
          this.#held.set(event.index, event);
        }
        return;
      case "finished": {
        const end = choiceEnd(event);
        const last = this.#held.get(event.index);
        this.#held.delete(event.index);
        this.#emitAll(this.#writer.chunks(event.index, last, end));
        return;
      }
      case "usage":
        this.flush();
        if (!this.#options.includeUsage) return;
        this.#emit(`${this.#writer.end()},"usage":${JSON.stringify(toUsage(event.usage))}}`);
        return;
    }
  }

  /** Emits what is held back: nothing more is ready now. */
  flush(): void {
    for (const index of this.#held.keys()) this.#emitHeld(index);
  }

  /** In place of further events: the generation failed in mid-stream. */
  fail(error: unknown): void {
    this.flush();
    this.#emit(JSON.stringify(toHttpError(error).body));
  }

  #emitHeld(index: number): void {
    const delta = this.#held.get(index);
    if (delta === undefined) return;
    this.#held.delete(index);
    this.#emitAll(this.#writer.chunks(index, delta, undefined));
  }

  #emitAll(chunks: readonly string[]): void {
    const { includeUsage, showsUsageSoFar } = this.#options;
    const usage = showsUsageSoFar ? this.#usageSoFar.json : "null";
    const tail = includeUsage ? `,"usage":${usage}}` : "}";
    for (const json of chunks) this.#emit(json + tail);
  }
}

export interface CollectedChoice extends ChoiceEnd {
  readonly index: number;
  readonly prompt: PromptEvent | undefined;
  readonly text: string;
  readonly reasoning: string;
  readonly calls: readonly ToolCall[];
  readonly tokenIds: readonly number[];
  readonly logprobs: DetailList<TokenDetail>;
  readonly textOffsets: readonly number[];
}

export interface Collected {
  readonly prompts: AcceptedEvent["prompts"];
  /** By index. */
  readonly choices: readonly CollectedChoice[];
  readonly usage: GenerationUsage;
}

/**
 * Collects all events of a request.
 * @throws whatever the generation throws, and `aborted` if it was cut off
 */
export async function collect(events: AsyncIterable<GenerationEvent>, names: TokenNames): Promise<Collected> {
  let prompts: AcceptedEvent["prompts"] = [];
  let usage: GenerationUsage | undefined;
  const promptEvents = new Map<number, PromptEvent>();
  const collected = new Map<number, CollectedDeltas>();
  const deltasOf = (index: number) => {
    const choice = collected.get(index) ?? new CollectedDeltas(names);
    collected.set(index, choice);
    return choice;
  };
  const choices: CollectedChoice[] = [];
  for await (const event of events) {
    switch (event.type) {
      case "accepted":
        prompts = event.prompts;
        break;
      case "prompt":
        promptEvents.set(event.index, event);
        break;
      case "delta":
        deltasOf(event.index).push(event);
        break;
      case "finished": {
        const { index } = event;
        const { text, reasoning, calls, tokenIds, logprobs, textOffsets } = deltasOf(index);
        const prompt = promptEvents.get(index);
        choices.push({ index, prompt, text, reasoning, calls, tokenIds, logprobs, textOffsets, ...choiceEnd(event) });
        break;
      }
      case "usage":
        usage = event.usage;
        break;
    }
  }
  if (usage === undefined) throw new Error("the generation ended without its usage event");
  return { prompts, choices: choices.sort((a, b) => a.index - b.index), usage };
}

/**
 * OpenAI has no finish reason for an aborted generation: to a client that still listens it has
 * failed.
 */
export function choiceEnd({ reason, stoppedBy, state }: FinishedEvent): ChoiceEnd {
  if (reason === "aborted") throw new DenseMambaError("aborted", "the request was cut off before it was finished");
  return { reason, stoppedBy, ...(state !== undefined && { state }) };
}
