/**
 * What the renderers of completions and chat share. A renderer turns generation events into wire messages and knows no
 * transport: it is handed an `emit` and driven from `stream/pump.ts`.
 */
import { DenseMambaError } from "../../errors.ts";
import type { GenerationEvent } from "../../generation/events.ts";

export type AcceptedEvent = Extract<GenerationEvent, { type: "accepted" }>;
export type FinishedEvent = Extract<GenerationEvent, { type: "finished" }>;

export interface StreamRenderer {
  /** May hold the event back until the next one or `flush`. @throws `aborted` when the generation was cut off */
  push(event: GenerationEvent): void;
  /** Emits what is held back: nothing more is ready now. */
  flush(): void;
  /** Instead of further events: the generation failed in mid-stream. */
  fail(error: unknown): void;
}

/** One message, as JSON. */
export type Emit = (json: string) => void;

/** What the answer's head repeats, on every chunk. */
export interface AnswerHead {
  readonly id: string;
  readonly createdS: number;
  readonly model: string;
  readonly fingerprint: string;
}

export function headObject(head: AnswerHead, object: string) {
  return { id: head.id, object, created: head.createdS, model: head.model, system_fingerprint: head.fingerprint };
}

/** An object's JSON without its closing brace, to append members to. */
export function openJson(object: object): string {
  return JSON.stringify(object).slice(0, -1);
}

/** An aborted generation has no finish reason in OpenAI's terms: it is a failure to whoever still listens. */
export function finishReason(event: FinishedEvent): "stop" | "length" {
  if (event.reason === "aborted")
    throw new DenseMambaError("aborted", "the request was cut off before it was finished");
  return event.reason;
}
