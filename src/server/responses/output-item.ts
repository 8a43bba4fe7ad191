/**
 * A response's output items, its reasoning, its messages and its calls of functions, as OpenAI's
 * objects and events. Reasoning and messages have one part with text.
 */
import { openJson, RawJson } from "../openai/json-writer.ts";
import type { ItemState } from "./response.ts";

export type ItemKind = ItemState["kind"];

/** Without its `sequence_number`. */
export interface ItemEvent {
  readonly type: string;
  readonly members: object;
}

type ItemStatus = "in_progress" | "completed" | "incomplete";

interface TextPart {
  readonly type: "output_text" | "reasoning_text";
  readonly text: string;
  readonly annotations?: readonly never[];
  readonly logprobs?: RawJson;
}

/** What the text of an item is called in the types of its events. */
const TEXTS: Readonly<Record<ItemKind, string>> = {
  reasoning: "reasoning_text",
  message: "output_text",
  function_call: "function_call_arguments",
};

const PREFIXES: Readonly<Record<ItemKind, string>> = { reasoning: "rs", message: "msg", function_call: "fc" };

/**
 * @param messageId of the response's first message
 * @param index of the item among those of its kind
 */
export function outputItemId(messageId: string, kind: ItemKind, index: number): string {
  return messageId.replace(/^msg/, PREFIXES[kind]) + (index === 0 ? "" : `_${index}`);
}

/** How many events open an item, and how many close one. */
function numOpening(kind: ItemKind): number {
  return kind === "function_call" ? 1 : 2;
}

function numClosing(kind: ItemKind): number {
  return numOpening(kind) + 1;
}

export class OutputItem {
  readonly #state: Readonly<ItemState>;
  readonly #id: string;
  readonly #outputIndex: number;
  /** The event of a piece, up to its text. */
  readonly #pieceHead: string;
  /** Set once the item is closed. */
  #closedText: string | undefined;

  /** @param state may grow */
  constructor(state: Readonly<ItemState>, id: string, outputIndex: number) {
    this.#state = state;
    this.#id = id;
    this.#outputIndex = outputIndex;
    this.#pieceHead = `${openJson({ type: `response.${TEXTS[state.kind]}.delta`, ...this.#place })},"delta":`;
  }

  get numEvents(): number {
    const { kind, pieces, closedAs } = this.#state;
    return numOpening(kind) + pieces.length + (closedAs ? numClosing(kind) : 0);
  }

  /** @param index below `numEvents` */
  event(index: number, sequenceNumber: number): ItemEvent | { readonly type: string; readonly json: string } {
    const { kind, pieces } = this.#state;
    const first = numOpening(kind);
    if (index < first) return this.#opening(index);
    if (index < first + pieces.length) return this.#piece(index - first, sequenceNumber);
    return this.#closing(index - first - pieces.length);
  }

  /** @param status of an item that has not been closed */
  object(status: ItemStatus): object {
    return { ...this.#head(this.#state.closedAs ?? status), ...this.#whole() };
  }

  #opening(index: number): ItemEvent {
    if (index > 0)
      return { type: "response.content_part.added", members: { ...this.#place, part: this.#part("", []) } };
    const empty = this.#state.kind === "function_call" ? { arguments: "" } : { content: [] };
    const item = { ...this.#head("in_progress"), ...empty };
    return { type: "response.output_item.added", members: { output_index: this.#outputIndex, item } };
  }

  #piece(index: number, sequenceNumber: number): { readonly type: string; readonly json: string } {
    const { kind, pieces, logprobs } = this.#state;
    const details = kind === "message" ? `,"logprobs":${logprobs?.[index] ?? "[]"}` : "";
    const json = `${this.#pieceHead}${JSON.stringify(pieces[index])}${details},"sequence_number":${sequenceNumber}}`;
    return { type: `response.${TEXTS[kind]}.delta`, json };
  }

  #closing(index: number): ItemEvent {
    const { kind, call } = this.#state;
    const isText = kind !== "function_call";
    if (index === numClosing(kind) - 1) {
      const members = { output_index: this.#outputIndex, item: this.object("completed") };
      return { type: "response.output_item.done", members };
    }
    if (isText && index === 1) {
      return { type: "response.content_part.done", members: { ...this.#place, part: this.#part() } };
    }
    const { text, logprobs } = this.#part();
    const done = isText ? { text, ...(logprobs && { logprobs }) } : { name: call!.name, arguments: text };
    return { type: `response.${TEXTS[kind]}.done`, members: { ...this.#place, ...done } };
  }

  get #place() {
    const place = { item_id: this.#id, output_index: this.#outputIndex };
    return this.#state.kind === "function_call" ? place : { ...place, content_index: 0 };
  }

  #head(status: ItemStatus) {
    const { kind, call } = this.#state;
    const head = { id: this.#id, type: kind };
    switch (kind) {
      case "reasoning":
        return { ...head, summary: [], status };
      case "message":
        return { ...head, role: "assistant", status };
      case "function_call":
        return { ...head, call_id: call!.callId, name: call!.name, status };
    }
  }

  #whole(): object {
    return this.#state.kind === "function_call" ? { arguments: this.#text } : { content: [this.#part()] };
  }

  get #text(): string {
    const text = this.#closedText ?? this.#state.pieces.join("");
    if (this.#state.closedAs) this.#closedText = text;
    return text;
  }

  #part(text = this.#text, logprobs: readonly string[] = this.#state.logprobs ?? []): TextPart {
    if (this.#state.kind !== "message") return { type: "reasoning_text", text };
    return { type: "output_text", text, annotations: [], logprobs: joinedLists(logprobs) };
  }
}

/** @param lists JSON lists @returns one list of all their items */
function joinedLists(lists: readonly string[]): RawJson {
  const items = lists.map((list) => list.slice(1, -1)).filter((inside) => inside !== "");
  return new RawJson(`[${items.join(",")}]`);
}
