/**
 * One turn of a conversation: what was said, and the answer. Each answered turn is a state on the
 * server, which any number of turns may continue, so turns form a tree. A tree may also begin with
 * a stored session. What changes while an answer comes is in signals.
 */
import { type Signal, signal } from "@preact/signals";
import { type Item, isFinal, type ResponseEvent, type ResponseObject, type Usage } from "../api/wire.ts";

export type TurnStatus = "waiting" | "running" | "done" | "cut" | "stopped" | "failed";

export interface AnswerPart {
  readonly kind: "reasoning" | "text" | "call";
  readonly text: string;
  /** Of a call, whose text is its arguments. */
  readonly call?: { readonly id: string; readonly name: string };
}

/** What a turn begins with. */
export type Origin =
  | { readonly type: "message"; readonly text: string }
  | { readonly type: "results"; readonly outputs: readonly { readonly callId: string; readonly output: string }[] }
  /** No turn, but a state that is there. */
  | { readonly type: "session"; readonly id: string; readonly numTokens: number };

export interface Timing {
  readonly firstTokenMs: number | undefined;
  readonly tokensPerSecond: number | undefined;
  readonly numTokens: number;
}

const NO_TIMING: Timing = { firstTokenMs: undefined, tokensPerSecond: undefined, numTokens: 0 };

export class Turn {
  readonly key: string;
  readonly parent: Turn | undefined;
  readonly origin: Origin;
  /** Turns that were sent together have the same one: samples of one answer. */
  readonly batch: string;
  readonly children: Signal<readonly Turn[]> = signal([]);
  readonly status: Signal<TurnStatus>;
  readonly parts: Signal<readonly AnswerPart[]> = signal([]);
  readonly usage: Signal<Usage | undefined> = signal(undefined);
  readonly timing: Signal<Timing> = signal(NO_TIMING);
  readonly error: Signal<string | undefined> = signal(undefined);
  /** The session that keeps this state. */
  readonly name: Signal<string | undefined> = signal(undefined);
  responseId: string | undefined;

  constructor(options: Pick<Turn, "key" | "origin" | "batch"> & { parent: Turn | undefined; status: TurnStatus }) {
    this.key = options.key;
    this.origin = options.origin;
    this.batch = options.batch;
    this.parent = options.parent;
    this.status = signal(options.status);
  }

  get isRunning(): boolean {
    return this.status.value === "waiting" || this.status.value === "running";
  }

  /** Whether a turn can follow: the server has its state. */
  get canGoOn(): boolean {
    return this.origin.type === "session" || (!this.isRunning && this.usage.value !== undefined);
  }

  /** Of the whole conversation up to here. */
  get numTokens(): number {
    if (this.origin.type === "session") return this.origin.numTokens;
    const usage = this.usage.value;
    if (usage !== undefined) return usage.input_tokens + usage.output_tokens;
    return (this.parent?.numTokens ?? 0) + this.timing.value.numTokens;
  }

  /** A short text for lists. */
  get label(): string {
    const { origin } = this;
    if (origin.type === "message") return origin.text;
    return origin.type === "session" ? origin.id : origin.outputs.map(({ output }) => output).join(", ");
  }
}

/** From the first turn to this one. */
export function pathTo(turn: Turn | undefined): readonly Turn[] {
  const path: Turn[] = [];
  for (let at = turn; at !== undefined; at = at.parent) path.unshift(at);
  return path;
}

/** The turn at the end of what was continued last from here. */
export function lastOf(turn: Turn): Turn {
  let at = turn;
  for (let next = at.children.value.at(-1); next !== undefined; next = at.children.value.at(-1)) at = next;
  return at;
}

/** Applies a response's events to its turn, at most once a frame. */
export class TurnReader {
  readonly #turn: Turn;
  readonly #now: () => number;
  readonly #sentMs: number;
  readonly #schedule: (apply: () => void) => void;
  #parts: AnswerPart[] = [];
  #firstMs: number | undefined;
  #lastMs = 0;
  #numTokens = 0;
  #isScheduled = false;

  constructor(turn: Turn, { now, schedule }: { now: () => number; schedule: (apply: () => void) => void }) {
    this.#turn = turn;
    this.#now = now;
    this.#schedule = schedule;
    this.#sentMs = now();
  }

  read(event: ResponseEvent): void {
    switch (event.type) {
      case "response.created":
        this.#turn.responseId = event.response.id;
        this.#turn.status.value = "running";
        return;
      case "response.output_item.added": {
        const part = toPart(event.item);
        if (part !== undefined) this.#parts = [...this.#parts, part];
        return;
      }
      case "response.output_text.delta":
      case "response.reasoning_text.delta":
      case "response.function_call_arguments.delta":
        this.#append(event.delta);
        return;
    }
    if (isFinal(event)) {
      this.#apply();
      showResponse(this.#turn, event.response);
    }
  }

  #append(delta: string): void {
    this.#lastMs = this.#now();
    this.#firstMs ??= this.#lastMs;
    this.#numTokens += 1;
    const last = this.#parts.at(-1);
    if (last === undefined) return;
    this.#parts = [...this.#parts.slice(0, -1), { ...last, text: last.text + delta }];
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    this.#schedule(() => this.#apply());
  }

  #apply(): void {
    this.#isScheduled = false;
    if (this.#firstMs === undefined) return;
    const seconds = (this.#lastMs - this.#firstMs) / 1000;
    this.#turn.parts.value = this.#parts;
    this.#turn.timing.value = {
      firstTokenMs: this.#firstMs - this.#sentMs,
      tokensPerSecond: seconds > 0 ? (this.#numTokens - 1) / seconds : undefined,
      numTokens: this.#numTokens,
    };
  }
}

/** Of a response that has ended, or of one that was made elsewhere. */
export function showResponse(turn: Turn, { id, status, output, usage, error }: ResponseObject): void {
  turn.responseId = id;
  turn.parts.value = output.flatMap((item) => toPart(item) ?? []);
  turn.usage.value = usage ?? undefined;
  turn.error.value = error?.message;
  turn.status.value = STATUSES[status];
}

const STATUSES = {
  queued: "waiting",
  in_progress: "running",
  completed: "done",
  incomplete: "cut",
  cancelled: "stopped",
  failed: "failed",
} as const satisfies Record<ResponseObject["status"], TurnStatus>;

function toPart(item: Item): AnswerPart | undefined {
  switch (item.type) {
    case "message":
      return { kind: "text", text: textOf(item.content) };
    case "reasoning":
      return { kind: "reasoning", text: textOf(item.content) };
    case "function_call":
      return { kind: "call", text: item.arguments, call: { id: item.call_id, name: item.name } };
    case "function_call_output":
      return undefined;
  }
}

/** Of the items that a request brought. */
export function originOf(items: readonly Item[]): Origin {
  const outputs = items.filter((item) => item.type === "function_call_output");
  if (outputs.length > 0) {
    return { type: "results", outputs: outputs.map(({ call_id: callId, output }) => ({ callId, output })) };
  }
  const texts = items.map((item) => (item.type === "message" && item.role === "user" ? textOf(item.content) : ""));
  return { type: "message", text: texts.filter((text) => text !== "").join("\n") };
}

function textOf(content: string | readonly { readonly text: string }[]): string {
  return typeof content === "string" ? content : content.map(({ text }) => text).join("");
}
