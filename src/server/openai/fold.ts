/** Gathers the events of one request, choice by choice: a non-streaming answer is rendered from what is here at the end. */
import type { GenerationEvent, GenerationUsage, TokenDetail } from "../../generation/events.ts";
import { type AcceptedEvent, type DeltaEvent, finishReason, type PromptEvent } from "./renderer.ts";

export interface FoldedChoice {
  readonly index: number;
  readonly prompt: PromptEvent | undefined;
  readonly text: string;
  readonly tokenIds: readonly number[];
  readonly logprobs: readonly TokenDetail[];
  readonly textOffsets: readonly number[];
  readonly reason: "stop" | "length";
  readonly stoppedBy: string | number | undefined;
}

export interface Folded {
  readonly prompts: AcceptedEvent["prompts"];
  /** By index. */
  readonly choices: readonly FoldedChoice[];
  readonly usage: GenerationUsage;
}

/** @throws whatever the generation throws, and `aborted` when it was cut off */
export async function fold(events: AsyncIterable<GenerationEvent>): Promise<Folded> {
  let prompts: AcceptedEvent["prompts"] = [];
  let usage: GenerationUsage | undefined;
  const promptEvents = new Map<number, PromptEvent>();
  const deltas = new Map<number, DeltaEvent[]>();
  const choices: FoldedChoice[] = [];
  for await (const event of events) {
    switch (event.type) {
      case "accepted":
        prompts = event.prompts;
        break;
      case "prompt":
        promptEvents.set(event.index, event);
        break;
      case "delta": {
        const known = deltas.get(event.index);
        if (known) known.push(event);
        else deltas.set(event.index, [event]);
        break;
      }
      case "finished": {
        const parts = deltas.get(event.index) ?? [];
        choices.push({
          index: event.index,
          prompt: promptEvents.get(event.index),
          text: parts.map((part) => part.text).join(""),
          tokenIds: parts.flatMap((part) => part.tokenIds),
          logprobs: parts.flatMap((part) => part.logprobs ?? []),
          textOffsets: parts.flatMap((part) => part.textOffsets ?? []),
          reason: finishReason(event),
          stoppedBy: event.stoppedBy,
        });
        break;
      }
      case "usage":
        usage = event.usage;
        break;
    }
  }
  if (usage === undefined) throw new Error("the generation ended without its usage event");
  return { prompts, choices: choices.sort((a, b) => a.index - b.index), usage };
}
