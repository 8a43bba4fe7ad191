/**
 * Streams the choices of completions and chat: one chunk per delta. The last delta is held until the tick ends, so that
 * the chunk which ends a choice also carries its last text; empty deltas are left out unless they have something to tell.
 */
import type { GenerationEvent, GenerationUsage } from "../../generation/events.ts";
import { toHttpError } from "./error.ts";
import {
  type AcceptedEvent,
  type DeltaEvent,
  type Emit,
  finishReason,
  type PromptEvent,
  type StreamRenderer,
} from "./renderer.ts";

export interface ChoiceEnd {
  readonly reason: "stop" | "length";
  readonly stoppedBy: string | number | undefined;
}

/** The JSON of an endpoint's chunks. */
export interface ChunkWriter {
  /** Deltas without text are worth a chunk. */
  readonly wantsEmptyDeltas: boolean;
  accepted(event: AcceptedEvent): void;
  prompt(event: PromptEvent): string | undefined;
  chunk(index: number, delta: DeltaEvent | undefined, end: ChoiceEnd | undefined): string;
  usage(usage: GenerationUsage): string | undefined;
}

export class ChoiceStream implements StreamRenderer {
  readonly #writer: ChunkWriter;
  readonly #emit: Emit;
  #held: DeltaEvent | undefined;

  constructor(writer: ChunkWriter, emit: Emit) {
    this.#writer = writer;
    this.#emit = emit;
  }

  push(event: GenerationEvent): void {
    switch (event.type) {
      case "accepted":
        this.#writer.accepted(event);
        return;
      case "prompt":
        this.#emitIfAny(this.#writer.prompt(event));
        return;
      case "delta":
        this.flush();
        if (event.text !== "" || event.logprobs !== undefined || this.#writer.wantsEmptyDeltas) this.#held = event;
        return;
      case "finished": {
        const end = { reason: finishReason(event), stoppedBy: event.stoppedBy };
        const last = this.#held?.index === event.index ? this.#held : undefined;
        if (last === undefined) this.flush();
        this.#held = undefined;
        this.#emit(this.#writer.chunk(event.index, last, end));
        return;
      }
      case "usage":
        this.flush();
        this.#emitIfAny(this.#writer.usage(event.usage));
        return;
    }
  }

  flush(): void {
    const delta = this.#held;
    if (delta === undefined) return;
    this.#held = undefined;
    this.#emit(this.#writer.chunk(delta.index, delta, undefined));
  }

  fail(error: unknown): void {
    this.flush();
    this.#emit(JSON.stringify(toHttpError(error).body));
  }

  #emitIfAny(json: string | undefined): void {
    if (json !== undefined) this.#emit(json);
  }
}
