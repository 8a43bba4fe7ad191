/**
 * `chat.completion` objects and chunks, from the same events as completions. A choice's first chunk carries the role
 * together with its first text, so that a client which counts chunks counts tokens.
 */
import type { DeltaEvent, GenerationUsage } from "../../generation/events.ts";
import type { ChatTask } from "./chat.ts";
import type { ChoiceEnd, ChunkWriter } from "./choice-stream.ts";
import type { Folded } from "./fold.ts";
import { chatLogprobs, lazyChatLogprobs, promptLogprobs } from "./logprobs.ts";
import { type AcceptedEvent, type AnswerHead, headObject, openJson } from "./renderer.ts";
import { toUsage } from "./usage.ts";

export class ChatChunks implements ChunkWriter {
  readonly wantsEmptyDeltas: boolean;
  readonly #task: ChatTask;
  readonly #head: string;
  readonly #tail: string;
  /** Everything before the delta's members, by choice. */
  readonly #choiceHeads: string[] = [];
  /** Unsent prompt ids: they go out with the first chunk. */
  #promptIds: readonly number[] | undefined;

  constructor(head: AnswerHead, task: ChatTask) {
    this.wantsEmptyDeltas = task.returnTokenIds;
    this.#task = task;
    this.#head = openJson(headObject(head, "chat.completion.chunk"));
    this.#tail = task.includeUsage ? ',"usage":null}' : "}";
  }

  accepted(event: AcceptedEvent): void {
    if (this.#task.returnTokenIds) this.#promptIds = event.prompts[0]?.tokenIds ?? [];
  }

  prompt(): undefined {
    return undefined;
  }

  chunk(index: number, delta: DeltaEvent | undefined, end: ChoiceEnd | undefined): string {
    const text = delta?.text ?? "";
    let json: string;
    const head = this.#choiceHeads[index];
    if (head === undefined) {
      this.#choiceHeads[index] = `${this.#head},"choices":[{"index":${index},"delta":{`;
      json = `${this.#choiceHeads[index]}"role":"assistant","content":${JSON.stringify(text)}}`;
    } else json = text === "" ? `${head}}` : `${head}"content":${JSON.stringify(text)}}`;

    json += delta?.logprobs ? `,"logprobs":${JSON.stringify(chatLogprobs(delta.logprobs))}` : ',"logprobs":null';
    json += end
      ? `,"finish_reason":"${end.reason}","stop_reason":${JSON.stringify(end.stoppedBy ?? null)}`
      : ',"finish_reason":null';
    if (this.#task.returnTokenIds) json += `,"token_ids":${JSON.stringify(delta?.tokenIds ?? [])}`;
    json += "}]";
    if (this.#promptIds !== undefined) json += `,"prompt_token_ids":${JSON.stringify(this.#promptIds)}`;
    this.#promptIds = undefined;
    return json + this.#tail;
  }

  usage(usage: GenerationUsage): string | undefined {
    if (!this.#task.includeUsage) return undefined;
    return `${this.#head},"choices":[],"usage":${JSON.stringify(toUsage(usage))}}`;
  }
}

/** For `answerJson`. */
export function chatAnswer(head: AnswerHead, task: ChatTask, folded: Folded) {
  return {
    ...headObject(head, "chat.completion"),
    choices: folded.choices.map((choice) => ({
      index: choice.index,
      message: { role: "assistant", content: choice.text, refusal: null },
      logprobs: task.request.numLogprobs === undefined ? null : lazyChatLogprobs(choice.logprobs),
      finish_reason: choice.reason,
      stop_reason: choice.stoppedBy ?? null,
      ...(task.returnTokenIds && { token_ids: choice.tokenIds }),
    })),
    usage: toUsage(folded.usage),
    ...(task.returnTokenIds && { prompt_token_ids: folded.prompts[0]?.tokenIds ?? [] }),
    ...(task.promptLogprobs && { prompt_logprobs: promptLogprobs(folded.choices[0]?.prompt?.logprobs ?? []) }),
  };
}
