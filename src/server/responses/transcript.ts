/**
 * One response from its first event to its last. The pieces of its text determine its events, so
 * that any of them can be rendered again for a client that comes late or comes back, from the
 * running response or from its record.
 */
import type { GenerationEvent } from "../../generation/events.ts";
import { toHttpError } from "../openai/errors.ts";
import { toJson } from "../openai/json-writer.ts";
import { tokenLogprobs } from "../openai/logprobs.ts";
import { type ItemEvent, type ItemProgress, NUM_CLOSING, NUM_OPENING, OutputItem } from "./output-item.ts";
import {
  type ResponseHead,
  type ResponseObject,
  type ResponseSettings,
  type ResponseStatus,
  responseObject,
  type TranscriptState,
} from "./response.ts";

export interface RenderedEvent {
  readonly type: string;
  /** With its `sequence_number`. */
  readonly json: string;
}

/** Whether a response with this status has ended. */
export function isFinal(status: ResponseStatus): boolean {
  return status !== "queued" && status !== "in_progress";
}

/** Independent of what is pushed later. */
export function copyState({ pieces, logprobs, reasoning, ...state }: TranscriptState): TranscriptState {
  return {
    ...state,
    pieces: [...pieces],
    logprobs: logprobs && [...logprobs],
    ...(reasoning && { reasoning: { ...reasoning, pieces: [...reasoning.pieces] } }),
  };
}

export class Transcript {
  readonly head: ResponseHead;
  #settings: ResponseSettings;
  readonly #state: TranscriptState;
  readonly #nowS: () => number;
  /** Made when they are first rendered. */
  #reasoningItem: OutputItem | undefined;
  #messageItem: OutputItem | undefined;
  #hasEnded: boolean;

  /** @param stored the state of a stored response; it is not changed */
  constructor(head: ResponseHead, settings: ResponseSettings, nowS: () => number, stored?: TranscriptState) {
    this.head = head;
    this.#settings = settings;
    this.#nowS = nowS;
    this.#hasEnded = stored !== undefined && isFinal(stored.status);
    this.#state = copyState({
      numLead: 0,
      hasItem: false,
      closedAs: null,
      status: settings.background ? "queued" : "in_progress",
      usage: null,
      error: null,
      completedAtS: null,
      pieces: [],
      logprobs: null,
      ...stored,
    });
  }

  get settings(): ResponseSettings {
    return this.#settings;
  }

  get state(): Readonly<TranscriptState> {
    return this.#state;
  }

  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  get numEvents(): number {
    const { numLead, reasoning, hasItem } = this.#state;
    const numOfReasoning = reasoning === undefined ? 0 : numItemEvents(reasoning);
    return numLead + numOfReasoning + (hasItem ? numItemEvents(this.#state) : 0) + (this.#hasEnded ? 1 : 0);
  }

  push(event: GenerationEvent): void {
    const state = this.#state;
    if (event.type === "accepted") {
      state.numLead = 2;
      return;
    }
    if (state.status === "queued") {
      state.numLead = 3;
      state.status = "in_progress";
    }
    switch (event.type) {
      case "prompt":
        return;
      case "delta":
        if (event.part === "reasoning") {
          if (event.text === "") return;
          state.reasoning ??= { pieces: [], closedAs: null };
          state.reasoning.pieces.push(event.text);
          return;
        }
        if (state.reasoning) state.reasoning.closedAs ??= "completed";
        state.hasItem = true;
        if (event.text === "" && event.logprobs === undefined) return;
        state.pieces.push(event.text);
        if (event.logprobs !== undefined) {
          state.logprobs ??= [];
          state.logprobs.push(JSON.stringify(tokenLogprobs(event.logprobs)));
        }
        return;
      case "finished":
        if (event.isSaved === false) this.markUnstored();
        state.status = this.#statusAfter(event.reason);
        if (state.status === "completed") state.completedAtS = this.#nowS();
        if (!this.settings.generates) return;
        this.#close(state.status === "completed" ? "completed" : "incomplete");
        return;
      case "usage":
        state.usage = event.usage;
        this.#hasEnded = true;
        return;
    }
  }

  /** An answer that has not come beyond its reasoning has no message. */
  #close(status: "completed" | "incomplete"): void {
    const state = this.#state;
    const isAllReasoning = state.reasoning !== undefined && !state.hasItem;
    if (isAllReasoning) state.reasoning!.closedAs = status;
    else {
      state.hasItem = true;
      state.closedAs = status;
    }
  }

  /** Ends it as cancelled, if the generation has not reported its own end. */
  cancel(): void {
    this.#state.status = "cancelled";
    this.#hasEnded = true;
  }

  /** It could not be stored: from now on it has `store: false`. */
  markUnstored(): void {
    this.#settings = { ...this.#settings, store: false };
  }

  /** Ends it as failed, even if `push` has ended it otherwise. */
  fail(error: unknown): void {
    this.#state.status = "failed";
    this.#state.completedAtS = null;
    this.#state.error = { code: "server_error", message: toHttpError(error).body.error.message };
    this.#hasEnded = true;
  }

  /** The response at this moment. */
  response(): ResponseObject {
    const { status, usage, error, completedAtS } = this.#state;
    const shown = isFinal(status) ? "incomplete" : "in_progress";
    const output = this.#items().map(({ item, progress }) => item.object(progress, shown));
    // Until its last event, clients see a finished response as in progress.
    if (!this.#hasEnded && isFinal(status)) return this.#beginning("in_progress", output);
    return responseObject(this.head, this.settings, { status, output, usage, error, completedAtS });
  }

  /** @param sequenceNumber below `numEvents` */
  render(sequenceNumber: number): RenderedEvent {
    const { numLead } = this.#state;
    if (sequenceNumber < numLead) return this.#lead(sequenceNumber);
    let index = sequenceNumber - numLead;
    for (const { item, progress } of this.#items()) {
      const { pieces, logprobs } = progress;
      if (index < NUM_OPENING) return rendered(item.opening(index), sequenceNumber);
      index -= NUM_OPENING;
      if (index < pieces.length) return item.piece(pieces[index]!, logprobs?.[index] ?? "[]", sequenceNumber);
      index -= pieces.length;
      if (progress.closedAs) {
        if (index < NUM_CLOSING) return rendered(item.closing(index, progress), sequenceNumber);
        index -= NUM_CLOSING;
      }
    }
    return this.#last(sequenceNumber);
  }

  #items(): { readonly item: OutputItem; readonly progress: ItemProgress }[] {
    const { reasoning, hasItem } = this.#state;
    const { itemId } = this.head;
    const items: { item: OutputItem; progress: ItemProgress }[] = [];
    if (reasoning !== undefined) {
      this.#reasoningItem ??= new OutputItem("reasoning", itemId.replace(/^msg_/, "rs_"), 0);
      items.push({ item: this.#reasoningItem, progress: { ...reasoning, logprobs: null } });
    }
    if (hasItem) {
      this.#messageItem ??= new OutputItem("message", itemId, items.length);
      items.push({ item: this.#messageItem, progress: this.#state });
    }
    return items;
  }

  #statusAfter(reason: "stop" | "length" | "aborted"): ResponseStatus {
    if (reason === "aborted") return "cancelled";
    return reason === "length" && this.settings.generates ? "incomplete" : "completed";
  }

  #lead(index: number): RenderedEvent {
    const { background } = this.settings;
    const types = background ? ["created", "queued", "in_progress"] : ["created", "in_progress"];
    const status = background && index < 2 ? "queued" : "in_progress";
    return rendered({ type: `response.${types[index]}`, members: { response: this.#beginning(status, []) } }, index);
  }

  #last(sequenceNumber: number): RenderedEvent {
    const { status } = this.#state;
    const type = status === "completed" || status === "failed" ? status : "incomplete";
    return rendered({ type: `response.${type}`, members: { response: this.response() } }, sequenceNumber);
  }

  #beginning(status: ResponseStatus, output: readonly object[]): ResponseObject {
    const nothingYet = { usage: null, error: null, completedAtS: null };
    return responseObject(this.head, this.settings, { status, output, ...nothingYet });
  }
}

function numItemEvents({ pieces, closedAs }: Pick<ItemProgress, "pieces" | "closedAs">): number {
  return NUM_OPENING + pieces.length + (closedAs ? NUM_CLOSING : 0);
}

function rendered({ type, members }: ItemEvent, sequenceNumber: number): RenderedEvent {
  return { type, json: toJson({ type, ...members, sequence_number: sequenceNumber }) };
}
