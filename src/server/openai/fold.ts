/** Gathers the events of one request, choice by choice: a non-streaming answer is rendered from what is here at the end. */
import type {
  DetailList,
  GenerationEvent,
  GenerationUsage,
  PromptEvent,
  TokenDetail,
} from "../../generation/events.ts";
import { GatheredChoice } from "../../generation/gathered-choice.ts";
import type { TokenNames } from "../../generation/token-details.ts";
import { type AcceptedEvent, finishReason } from "./renderer.ts";

export interface FoldedChoice {
  readonly index: number;
  readonly prompt: PromptEvent | undefined;
  readonly text: string;
  readonly tokenIds: readonly number[];
  readonly logprobs: DetailList<TokenDetail>;
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
export async function fold(events: AsyncIterable<GenerationEvent>, names: TokenNames): Promise<Folded> {
  let prompts: AcceptedEvent["prompts"] = [];
  let usage: GenerationUsage | undefined;
  const promptEvents = new Map<number, PromptEvent>();
  const answers = new Map<number, GatheredChoice>();
  const answerOf = (index: number) => {
    const answer = answers.get(index) ?? new GatheredChoice(names);
    answers.set(index, answer);
    return answer;
  };
  const choices: FoldedChoice[] = [];
  for await (const event of events) {
    switch (event.type) {
      case "accepted":
        prompts = event.prompts;
        break;
      case "prompt":
        promptEvents.set(event.index, event);
        break;
      case "delta":
        answerOf(event.index).push(event);
        break;
      case "finished": {
        const { text, tokenIds, logprobs, textOffsets } = answerOf(event.index);
        choices.push({
          index: event.index,
          prompt: promptEvents.get(event.index),
          text,
          tokenIds,
          logprobs,
          textOffsets,
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
