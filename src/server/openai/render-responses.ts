/**
 * `response` objects and their events. One class serves the stream (SSE or WebSocket) and the single answer, which is
 * what the last event holds. The answer has one output item, a message with one text part.
 */
import type { GenerationEvent, GenerationUsage, TokenDetail } from "../../generation/events.ts";
import { toHttpError } from "./error.ts";
import { tokenLogprobs } from "./logprobs.ts";
import { type Emit, openJson, type StreamRenderer } from "./renderer.ts";
import type { ResponseTask } from "./responses.ts";
import { toResponseUsage } from "./usage.ts";

export interface ResponseHead {
  readonly id: string;
  readonly itemId: string;
  readonly createdS: number;
  readonly model: string;
}

type Status = "in_progress" | "completed" | "incomplete" | "failed" | "cancelled";

const PLACE = { output_index: 0, content_index: 0 };

export class ResponseStream implements StreamRenderer {
  readonly #head: ResponseHead;
  readonly #task: ResponseTask;
  readonly #emitJson: Emit;
  readonly #nowS: () => number;
  /** A delta's event up to its text. */
  readonly #deltaHead: string;
  #sequenceNumber = 0;
  #itemStarted = false;
  #status: Status = "in_progress";
  #text = "";
  #details: TokenDetail[] = [];
  #usage: GenerationUsage | undefined;
  #error: { code: string; message: string } | null = null;
  #completedAtS: number | null = null;

  constructor(head: ResponseHead, task: ResponseTask, nowS: () => number, emit: Emit) {
    this.#head = head;
    this.#task = task;
    this.#nowS = nowS;
    this.#emitJson = emit;
    this.#deltaHead = `${openJson({ type: "response.output_text.delta", item_id: head.itemId, ...PLACE })},"delta":`;
  }

  push(event: GenerationEvent): void {
    switch (event.type) {
      case "accepted":
        this.#emit("response.created", { response: this.response() });
        this.#emit("response.in_progress", { response: this.response() });
        return;
      case "prompt":
        return;
      case "delta":
        this.#startItem();
        if (event.text !== "" || event.logprobs !== undefined) this.#delta(event.text, event.logprobs);
        return;
      case "finished":
        this.#finishItem(event.reason);
        return;
      case "usage":
        this.#usage = event.usage;
        this.#emit(this.#status === "completed" ? "response.completed" : "response.incomplete", {
          response: this.response(),
        });
        return;
    }
  }

  flush(): void {}

  fail(error: unknown): void {
    const { message } = toHttpError(error).body.error;
    this.#status = "failed";
    this.#error = { code: "server_error", message };
    this.#emit("response.failed", { response: this.response() });
  }

  /** The response as it stands. */
  response() {
    const { settings } = this.#task;
    const cut = this.#status === "incomplete";
    return {
      id: this.#head.id,
      object: "response",
      created_at: this.#head.createdS,
      completed_at: this.#completedAtS,
      status: this.#status,
      background: false,
      error: this.#error,
      incomplete_details: cut ? { reason: "max_output_tokens" } : null,
      instructions: settings.instructions,
      max_output_tokens: settings.maxOutputTokens,
      metadata: settings.metadata,
      model: this.#head.model,
      output: this.#itemStarted ? [this.#item()] : [],
      parallel_tool_calls: settings.parallelToolCalls,
      previous_response_id: settings.previousResponseId,
      reasoning: { effort: null, summary: null },
      store: settings.store,
      temperature: settings.temperature,
      text: { format: { type: "text" } },
      tool_choice: "auto",
      tools: [],
      top_logprobs: settings.topLogprobs,
      top_p: settings.topP,
      truncation: settings.truncation,
      usage: this.#usage ? toResponseUsage(this.#usage) : null,
    };
  }

  #startItem(): void {
    if (this.#itemStarted) return;
    this.#itemStarted = true;
    const { itemId } = this.#head;
    this.#emit("response.output_item.added", { output_index: 0, item: { ...this.#item(), content: [] } });
    this.#emit("response.content_part.added", { item_id: itemId, ...PLACE, part: this.#part() });
  }

  #delta(text: string, details: readonly TokenDetail[] | undefined): void {
    this.#text += text;
    if (details !== undefined) this.#details.push(...details);
    const logprobs = details === undefined ? "[]" : JSON.stringify(tokenLogprobs(details));
    const json = `${this.#deltaHead}${JSON.stringify(text)},"logprobs":${logprobs}`;
    this.#emitJson(`${json},"sequence_number":${this.#sequenceNumber++}}`, "response.output_text.delta");
  }

  #finishItem(reason: "stop" | "length" | "aborted"): void {
    this.#startItem();
    this.#status = reason === "stop" ? "completed" : reason === "length" ? "incomplete" : "cancelled";
    if (this.#status === "completed") this.#completedAtS = this.#nowS();
    const place = { item_id: this.#head.itemId, ...PLACE };
    const part = this.#part();
    this.#emit("response.output_text.done", { ...place, text: this.#text, logprobs: part.logprobs });
    this.#emit("response.content_part.done", { ...place, part });
    this.#emit("response.output_item.done", { output_index: 0, item: this.#item() });
  }

  #item() {
    return {
      id: this.#head.itemId,
      type: "message",
      role: "assistant",
      status: this.#status === "completed" || this.#status === "in_progress" ? this.#status : "incomplete",
      content: [this.#part()],
    };
  }

  #part() {
    return { type: "output_text", text: this.#text, annotations: [], logprobs: tokenLogprobs(this.#details) };
  }

  #emit(type: string, members: object): void {
    this.#emitJson(JSON.stringify({ type, ...members, sequence_number: this.#sequenceNumber++ }), type);
  }
}
