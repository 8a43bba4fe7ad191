/**
 * A response's output items, its reasoning and its message, as OpenAI's objects and events. Each
 * has one part with text.
 */
import { openJson, RawJson } from "../openai/json-writer.ts";

/** What there is of an item. */
export interface ItemProgress {
  readonly pieces: readonly string[];
  /** The JSON of one list per piece; null for none. */
  readonly logprobs: readonly string[] | null;
  readonly closedAs: "completed" | "incomplete" | null;
}

/** Without its `sequence_number`. */
export interface ItemEvent {
  readonly type: string;
  readonly members: object;
}

interface TextPart {
  readonly type: "output_text" | "reasoning_text";
  readonly text: string;
  readonly annotations?: readonly never[];
  readonly logprobs?: RawJson;
}

export const NUM_OPENING = 2;
export const NUM_CLOSING = 3;

export class OutputItem {
  readonly #kind: "reasoning" | "message";
  readonly #id: string;
  readonly #outputIndex: number;
  /** The event of a piece, up to its text. */
  readonly #pieceHead: string;
  /** Set once the item is closed. */
  #closedText: string | undefined;

  constructor(kind: "reasoning" | "message", id: string, outputIndex: number) {
    this.#kind = kind;
    this.#id = id;
    this.#outputIndex = outputIndex;
    this.#pieceHead = `${openJson({ type: `response.${this.#partType}.delta`, ...this.#place })},"delta":`;
  }

  /** @param index below `NUM_OPENING` */
  opening(index: number): ItemEvent {
    if (index === 0) {
      const item = { ...this.#head("in_progress"), content: [] };
      return { type: "response.output_item.added", members: { output_index: this.#outputIndex, item } };
    }
    return { type: "response.content_part.added", members: { ...this.#place, part: this.#part("", []) } };
  }

  /** @param details the JSON of the piece's log-probabilities */
  piece(text: string, details: string, sequenceNumber: number): { readonly type: string; readonly json: string } {
    const logprobs = this.#kind === "message" ? `,"logprobs":${details}` : "";
    const json = `${this.#pieceHead}${JSON.stringify(text)}${logprobs},"sequence_number":${sequenceNumber}}`;
    return { type: `response.${this.#partType}.delta`, json };
  }

  /** @param index below `NUM_CLOSING` */
  closing(index: number, progress: ItemProgress): ItemEvent {
    switch (index) {
      case 0: {
        const { type, text, logprobs } = this.#partOf(progress);
        return { type: `response.${type}.done`, members: { ...this.#place, text, ...(logprobs && { logprobs }) } };
      }
      case 1:
        return { type: "response.content_part.done", members: { ...this.#place, part: this.#partOf(progress) } };
      default: {
        const item = this.object(progress, "completed");
        return { type: "response.output_item.done", members: { output_index: this.#outputIndex, item } };
      }
    }
  }

  /** @param status of an item that has not been closed */
  object(progress: ItemProgress, status: "in_progress" | "completed" | "incomplete"): object {
    return { ...this.#head(progress.closedAs ?? status), content: [this.#partOf(progress)] };
  }

  get #partType() {
    return this.#kind === "message" ? "output_text" : "reasoning_text";
  }

  get #place() {
    return { item_id: this.#id, output_index: this.#outputIndex, content_index: 0 };
  }

  #head(status: "in_progress" | "completed" | "incomplete") {
    const own = this.#kind === "message" ? { role: "assistant" } : { summary: [] };
    return { id: this.#id, type: this.#kind, ...own, status };
  }

  #partOf({ pieces, logprobs, closedAs }: ItemProgress): TextPart {
    const text = this.#closedText ?? pieces.join("");
    if (closedAs) this.#closedText = text;
    return this.#part(text, logprobs ?? []);
  }

  #part(text: string, logprobs: readonly string[]): TextPart {
    if (this.#kind === "reasoning") return { type: "reasoning_text", text };
    return { type: "output_text", text, annotations: [], logprobs: joinedLists(logprobs) };
  }
}

/** @param lists JSON lists @returns one list of all their items */
function joinedLists(lists: readonly string[]): RawJson {
  const items = lists.map((list) => list.slice(1, -1)).filter((inside) => inside !== "");
  return new RawJson(`[${items.join(",")}]`);
}
