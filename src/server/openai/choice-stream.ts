/**
 * Streams the choices of completions and chat: one chunk per delta. A delta is held until the tick ends, so that the chunk
 * which ends a choice also carries its last text; empty deltas are left out unless they have something to tell.
 */
import type { DeltaEvent, GenerationEvent, GenerationUsage, PromptEvent } from "../../generation/events.ts";
import { toHttpError } from "./errors.ts";
import { type AcceptedEvent, type Emit, finishReason, type StreamRenderer } from "./renderer.ts";

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
  /** At most one per choice. */
  readonly #held = new Map<number, DeltaEvent>();

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
        this.#emitHeld(event.index);
        if (event.text !== "" || event.logprobs !== undefined || this.#writer.wantsEmptyDeltas) {
          this.#held.set(event.index, event);
        }
        return;
      case "finished": {
        const end = { reason: finishReason(event), stoppedBy: event.stoppedBy };
        const last = this.#held.get(event.index);
        this.#held.delete(event.index);
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
    for (const index of this.#held.keys()) this.#emitHeld(index);
  }

  fail(error: unknown): void {
    this.flush();
    this.#emit(JSON.stringify(toHttpError(error).body));
  }

  #emitHeld(index: number): void {
    const delta = this.#held.get(index);
    if (delta === undefined) return;
    this.#held.delete(index);
    this.#emit(this.#writer.chunk(index, delta, undefined));
  }

  #emitIfAny(json: string | undefined): void {
    if (json !== undefined) this.#emit(json);
  }
}
