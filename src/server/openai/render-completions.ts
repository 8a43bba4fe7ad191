/**
 * `text_completion` objects: chunks for a stream, or one answer from the folded events. A streamed chunk's constant parts
 * are built once; a token costs one JSON.stringify of its text.
 */
import type { DeltaEvent, GenerationUsage, PromptEvent } from "../../generation/events.ts";
import { countCharacters } from "../../generation/text-offsets.ts";
import type { ChoiceEnd, ChunkWriter } from "./choice-stream.ts";
import type { CompletionTask } from "./completions.ts";
import type { Folded, FoldedChoice } from "./fold.ts";
import { completionEntries, completionLogprobs, lazyCompletionLogprobs, promptLogprobs } from "./logprobs.ts";
import { type AcceptedEvent, type AnswerHead, headObject, openJson } from "./renderer.ts";
import { toUsage } from "./usage.ts";

/** The text of a prompt token that has no log-probability: the first entry of echoed logprobs. */
export type TokenText = (tokenId: number) => string;

export class CompletionChunks implements ChunkWriter {
  readonly wantsEmptyDeltas: boolean;
  readonly #task: CompletionTask;
  readonly #tokenText: TokenText;
  readonly #head: string;
  readonly #tail: string;
  readonly #choices: ChoiceState[] = [];
  #prompts: AcceptedEvent["prompts"] = [];
  readonly #promptIdsJson: string[] = [];

  constructor(head: AnswerHead, task: CompletionTask, tokenText: TokenText) {
    this.wantsEmptyDeltas = task.returnTokenIds;
    this.#task = task;
    this.#tokenText = tokenText;
    this.#head = openJson(headObject(head, "text_completion"));
    this.#tail = task.includeUsage ? '}],"usage":null}' : "}]}";
  }

  accepted(event: AcceptedEvent): void {
    this.#prompts = event.prompts;
  }

  prompt(event: PromptEvent): string | undefined {
    if (!this.#task.echo) return undefined;
    const choice = this.#choice(event.index);
    // A long prompt comes in parts, its text with the first.
    choice.numBefore += countCharacters(event.text);
    const logprobs = event.logprobs ? completionLogprobs(event, asEchoed(event, this.#tokenText)) : null;
    const text = `${JSON.stringify(event.text)},"logprobs":${JSON.stringify(logprobs)}`;
    return `${choice.head}${text},"finish_reason":null${this.#tail}`;
  }

  chunk(index: number, delta: DeltaEvent | undefined, end: ChoiceEnd | undefined): string {
    const choice = this.#choice(index);
    let json = choice.head + JSON.stringify(delta?.text ?? "");
    json += delta?.logprobs ? `,"logprobs":${JSON.stringify(completionLogprobs(delta, choice))}` : ',"logprobs":null';
    json += end
      ? `,"finish_reason":"${end.reason}","stop_reason":${JSON.stringify(end.stoppedBy ?? null)}`
      : ',"finish_reason":null';
    if (this.#task.returnTokenIds) {
      json += `,"token_ids":${JSON.stringify(delta?.tokenIds ?? [])}`;
      if (!choice.promptIdsSent) json += `,"prompt_token_ids":${this.#promptIds(index)}`;
      choice.promptIdsSent = true;
    }
    return json + this.#tail;
  }

  usage(usage: GenerationUsage): string | undefined {
    if (!this.#task.includeUsage) return undefined;
    return `${this.#head},"choices":[],"usage":${JSON.stringify(toUsage(usage))}}`;
  }

  /** As JSON: made once for all choices of a prompt. */
  #promptIds(index: number): string {
    const promptIndex = Math.floor(index / this.#task.request.numChoices);
    this.#promptIdsJson[promptIndex] ??= JSON.stringify(this.#prompts[promptIndex]?.tokenIds ?? []);
    return this.#promptIdsJson[promptIndex];
  }

  #choice(index: number): ChoiceState {
    this.#choices[index] ??= {
      head: `${this.#head},"choices":[{"index":${index},"text":`,
      numBefore: 0,
      promptIdsSent: false,
    };
    return this.#choices[index];
  }
}

interface ChoiceState {
  /** Everything before the text. */
  readonly head: string;
  /** Characters of the echoed prompt. */
  numBefore: number;
  promptIdsSent: boolean;
}

/** For `answerJson`. */
export function completionAnswer(head: AnswerHead, task: CompletionTask, folded: Folded, tokenText: TokenText) {
  return {
    ...headObject(head, "text_completion"),
    choices: folded.choices.map((choice) => ({
      index: choice.index,
      text: (task.echo ? (choice.prompt?.text ?? "") : "") + choice.text,
      logprobs: task.request.numLogprobs === undefined ? null : foldedLogprobs(choice, task, tokenText),
      finish_reason: choice.reason,
      stop_reason: choice.stoppedBy ?? null,
      ...(task.promptLogprobs && { prompt_logprobs: promptLogprobs(choice.prompt?.logprobs ?? []) }),
      ...(task.returnTokenIds && {
        token_ids: choice.tokenIds,
        prompt_token_ids: promptOf(folded.prompts, choice.index, task)?.tokenIds ?? [],
      }),
    })),
    usage: toUsage(folded.usage),
  };
}

function foldedLogprobs(choice: FoldedChoice, task: CompletionTask, tokenText: TokenText) {
  const prompt = task.echo ? choice.prompt : undefined;
  const numBefore = prompt === undefined ? 0 : countCharacters(prompt.text);
  // Tokens that a stop string left out begin where the text ends.
  const shown = { numBefore, length: countCharacters(choice.text) };
  return lazyCompletionLogprobs(function* () {
    if (prompt !== undefined) yield* completionEntries(prompt, asEchoed(prompt, tokenText));
    yield* completionEntries(choice, shown);
  });
}

function asEchoed({ tokenIds }: PromptEvent, tokenText: TokenText) {
  return { numBefore: 0, tokenText: (position: number) => tokenText(tokenIds[position]!) };
}

function promptOf(prompts: AcceptedEvent["prompts"], index: number, task: CompletionTask) {
  return prompts[Math.floor(index / task.request.numChoices)];
}
