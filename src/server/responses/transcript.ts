/**
 * One response from its first event to its last. The pieces of its texts determine its events, so
 * that any of them can be rendered again for a client that comes late or comes back, from the
 * running response or from its record.
 */
import type { DeltaEvent, GenerationEvent } from "../../generation/events.ts";
import { toHttpError } from "../openai/errors.ts";
import { toJson } from "../openai/json-writer.ts";
import { tokenLogprobs } from "../openai/logprobs.ts";
import { type ItemEvent, type ItemKind, OutputItem, outputItemId } from "./output-item.ts";
import {
  type ItemState,
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
export function copyState({ items, ...state }: TranscriptState): TranscriptState {
  const copies = items.map(({ pieces, logprobs, ...item }) => {
    return { ...item, pieces: [...pieces], logprobs: logprobs && [...logprobs] };
  });
  return { ...state, items: copies };
}

export class Transcript {
  readonly head: ResponseHead;
  #settings: ResponseSettings;
  readonly #state: TranscriptState;
  readonly #nowS: () => number;
  /** Made when they are first needed. */
  readonly #items: OutputItem[] = [];
  #hasEnded: boolean;

  /** @param stored the state of a stored response; it is not changed */
  constructor(head: ResponseHead, settings: ResponseSettings, nowS: () => number, stored?: TranscriptState) {
    this.head = head;
    this.#settings = settings;
    this.#nowS = nowS;
    this.#hasEnded = stored !== undefined && isFinal(stored.status);
    this.#state = copyState({
      numLead: 0,
      items: [],
      status: settings.background ? "queued" : "in_progress",
      usage: null,
      error: null,
      completedAtS: null,
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
    const numOfItems = this.#state.items.reduce((sum, _, index) => sum + this.#item(index).numEvents, 0);
    return this.#state.numLead + numOfItems + (this.#hasEnded ? 1 : 0);
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
        this.#delta(event);
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

  #delta({ part, text, call, logprobs, withdrawsCall }: DeltaEvent): void {
    const last = this.#state.items.at(-1);
    if (withdrawsCall && last !== undefined) last.closedAs = "incomplete";
    const kind = part === undefined ? "message" : part === "call" ? "function_call" : part;
    // The end of an answer with calls is no message.
    if (text === "" && (kind === "reasoning" || (kind === "message" && last?.kind === "function_call"))) return;
    const isNew = last?.kind !== kind || call !== undefined;
    const item = isNew ? this.#open(kind, call && { callId: call.id, name: call.name }) : last;
    const scores = kind === "message" ? logprobs : undefined;
    if (text === "" && scores === undefined) return;
    item.pieces.push(text);
    if (scores === undefined) return;
    item.logprobs ??= [];
    item.logprobs.push(JSON.stringify(tokenLogprobs(scores)));
  }

  #open(kind: ItemKind, call?: ItemState["call"]): ItemState {
    const { items } = this.#state;
    const last = items.at(-1);
    if (last !== undefined) last.closedAs ??= "completed";
    const item: ItemState = { kind, pieces: [], logprobs: null, ...(call && { call }), closedAs: null };
    items.push(item);
    return item;
  }

  /** An answer that has not come beyond its reasoning has no message, nor has one of calls alone. */
  #close(status: "completed" | "incomplete"): void {
    const last = this.#state.items.at(-1) ?? this.#open("message");
    last.closedAs = status;
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
    const output = this.#state.items.map((_, index) => this.#item(index).object(shown));
    // Until its last event, clients see a finished response as in progress.
    if (!this.#hasEnded && isFinal(status)) return this.#beginning("in_progress", output);
    return responseObject(this.head, this.settings, { status, output, usage, error, completedAtS });
  }

  /** @param sequenceNumber below `numEvents` */
  render(sequenceNumber: number): RenderedEvent {
    const { numLead, items } = this.#state;
    if (sequenceNumber < numLead) return this.#lead(sequenceNumber);
    let index = sequenceNumber - numLead;
    for (let at = 0; at < items.length; at++) {
      const item = this.#item(at);
      if (index < item.numEvents) {
        const event = item.event(index, sequenceNumber);
        return "json" in event ? event : rendered(event, sequenceNumber);
      }
      index -= item.numEvents;
    }
    return this.#last(sequenceNumber);
  }

  #item(index: number): OutputItem {
    this.#items[index] ??= this.#makeItem(index);
    return this.#items[index];
  }

  #makeItem(index: number): OutputItem {
    const { items } = this.#state;
    const state = items[index]!;
    const numBefore = items.slice(0, index).filter(({ kind }) => kind === state.kind).length;
    return new OutputItem(state, outputItemId(this.head.itemId, state.kind, numBefore), index);
  }

  #statusAfter(reason: "stop" | "tool_calls" | "length" | "aborted"): ResponseStatus {
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

function rendered({ type, members }: ItemEvent, sequenceNumber: number): RenderedEvent {
  return { type, json: toJson({ type, ...members, sequence_number: sequenceNumber }) };
}
