/**
 * One response from its first event to its last. The pieces of its text determine its events, so
 * that any of them can be rendered again for a client that comes late or comes back, from the
 * running response or from its record. The answer has one output item, a message with one text
 * part.
 */
import type { GenerationEvent } from "../../generation/events.ts";
import { toHttpError } from "../openai/errors.ts";
import { openJson, RawJson, toJson } from "../openai/json-writer.ts";
import { tokenLogprobs } from "../openai/logprobs.ts";
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

const PLACE = { output_index: 0, content_index: 0 };
const NUM_OPENING = 2;
const NUM_CLOSING = 3;

/** Whether a response with this status has ended. */
export function isFinal(status: ResponseStatus): boolean {
  return status !== "queued" && status !== "in_progress";
}

export class Transcript {
  readonly head: ResponseHead;
  #settings: ResponseSettings;
  readonly #state: TranscriptState;
  readonly #nowS: () => number;
  /** The event of a piece, up to its text. */
  readonly #pieceHead: string;
  #hasEnded: boolean;
  /** Set once the item is closed. */
  #closedText: string | undefined;

  /** @param stored the state of a stored response; it is not changed */
  constructor(head: ResponseHead, settings: ResponseSettings, nowS: () => number, stored?: TranscriptState) {
    this.head = head;
    this.#settings = settings;
    this.#nowS = nowS;
    this.#pieceHead = `${openJson({ type: "response.output_text.delta", item_id: head.itemId, ...PLACE })},"delta":`;
    this.#hasEnded = stored !== undefined && isFinal(stored.status);
    this.#state = {
      numLead: 0,
      hasItem: false,
      closedAs: null,
      status: settings.background ? "queued" : "in_progress",
      usage: null,
      error: null,
      completedAtS: null,
      ...stored,
      pieces: [...(stored?.pieces ?? [])],
      logprobs: stored?.logprobs ? [...stored.logprobs] : null,
    };
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
    const { numLead, hasItem, pieces, closedAs } = this.#state;
    const numOfItem = (hasItem ? NUM_OPENING : 0) + pieces.length + (closedAs ? NUM_CLOSING : 0);
    return numLead + numOfItem + (this.#hasEnded ? 1 : 0);
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
        state.hasItem = true;
        state.closedAs = state.status === "completed" ? "completed" : "incomplete";
        return;
      case "usage":
        state.usage = event.usage;
        this.#hasEnded = true;
        return;
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
    const { status, usage, error, completedAtS, hasItem } = this.#state;
    const output = hasItem ? [this.#item()] : [];
    // Until its last event, clients see a finished response as in progress.
    if (!this.#hasEnded && isFinal(status)) return this.#beginning("in_progress", output);
    return responseObject(this.head, this.settings, { status, output, usage, error, completedAtS });
  }

  /** @param sequenceNumber below `numEvents` */
  render(sequenceNumber: number): RenderedEvent {
    const { numLead, hasItem, pieces, closedAs } = this.#state;
    if (sequenceNumber < numLead) return this.#lead(sequenceNumber);
    let index = sequenceNumber - numLead;
    if (hasItem) {
      if (index < NUM_OPENING) return this.#opening(index, sequenceNumber);
      index -= NUM_OPENING;
      if (index < pieces.length) return this.#piece(index, sequenceNumber);
      index -= pieces.length;
      if (closedAs && index < NUM_CLOSING) return this.#closing(index, sequenceNumber);
    }
    return this.#last(sequenceNumber);
  }

  #statusAfter(reason: "stop" | "length" | "aborted"): ResponseStatus {
    if (reason === "aborted") return "cancelled";
    return reason === "length" && this.settings.generates ? "incomplete" : "completed";
  }

  #lead(index: number): RenderedEvent {
    const { background } = this.settings;
    const types = background ? ["created", "queued", "in_progress"] : ["created", "in_progress"];
    const status = background && index < 2 ? "queued" : "in_progress";
    return rendered(`response.${types[index]}`, { response: this.#beginning(status, []) }, index);
  }

  #opening(index: number, sequenceNumber: number): RenderedEvent {
    const { itemId } = this.head;
    if (index === 0) {
      const item = { ...message(itemId, "in_progress"), content: [] };
      return rendered("response.output_item.added", { output_index: 0, item }, sequenceNumber);
    }
    const place = { item_id: itemId, ...PLACE };
    return rendered("response.content_part.added", { ...place, part: textPart("", joinedLists([])) }, sequenceNumber);
  }

  #piece(index: number, sequenceNumber: number): RenderedEvent {
    const { pieces, logprobs } = this.#state;
    const details = logprobs?.[index] ?? "[]";
    const json = `${this.#pieceHead}${JSON.stringify(pieces[index])},"logprobs":${details}`;
    return { type: "response.output_text.delta", json: `${json},"sequence_number":${sequenceNumber}}` };
  }

  #closing(index: number, sequenceNumber: number): RenderedEvent {
    const place = { item_id: this.head.itemId, ...PLACE };
    const part = this.#part();
    switch (index) {
      case 0:
        return rendered(
          "response.output_text.done",
          { ...place, text: part.text, logprobs: part.logprobs },
          sequenceNumber,
        );
      case 1:
        return rendered("response.content_part.done", { ...place, part }, sequenceNumber);
      default:
        return rendered("response.output_item.done", { output_index: 0, item: this.#item() }, sequenceNumber);
    }
  }

  #last(sequenceNumber: number): RenderedEvent {
    const { status } = this.#state;
    const type = status === "completed" || status === "failed" ? status : "incomplete";
    return rendered(`response.${type}`, { response: this.response() }, sequenceNumber);
  }

  #beginning(status: ResponseStatus, output: readonly object[]): ResponseObject {
    const nothingYet = { usage: null, error: null, completedAtS: null };
    return responseObject(this.head, this.settings, { status, output, ...nothingYet });
  }

  #item() {
    const { closedAs, status } = this.#state;
    const shown = closedAs ?? (isFinal(status) ? "incomplete" : "in_progress");
    return { ...message(this.head.itemId, shown), content: [this.#part()] };
  }

  #part() {
    const { pieces, logprobs, closedAs } = this.#state;
    const text = this.#closedText ?? pieces.join("");
    if (closedAs) this.#closedText = text;
    return textPart(text, joinedLists(logprobs ?? []));
  }
}

function message(id: string, status: "in_progress" | "completed" | "incomplete") {
  return { id, type: "message", role: "assistant", status };
}

function textPart(text: string, logprobs: RawJson) {
  return { type: "output_text", text, annotations: [], logprobs };
}

/** @param lists JSON lists @returns one list of all their items */
function joinedLists(lists: readonly string[]): RawJson {
  const items = lists.map((list) => list.slice(1, -1)).filter((inside) => inside !== "");
  return new RawJson(`[${items.join(",")}]`);
}

function rendered(type: string, members: object, sequenceNumber: number): RenderedEvent {
  return { type, json: toJson({ type, ...members, sequence_number: sequenceNumber }) };
}
