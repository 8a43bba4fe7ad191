/**
 * Prompts that are ready → the choices of their answers: each is a sequence in the engine, whose
 * tokens become text. All are admitted, or none.
 */
import { setImmediate } from "node:timers/promises";
import { aboutField } from "../errors.ts";
import type { Grammars } from "../grammar/grammars.ts";
import type { PrefixReuse } from "../prefix/prefix-reuse.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { admit, type SequenceEngine } from "./admission.ts";
import { encodeBadWords } from "./bad-words.ts";
import { Choice, type ChoiceOptions } from "./choice.ts";
import { openMatchers } from "./constrained-answers.ts";
import { type EchoedPrompt, echoPrompt } from "./echo.ts";
import type { GenerationRequest } from "./events.ts";
import type { PreparedPrompt } from "./prompts.ts";
import { cachesEnd } from "./running-request.ts";
import { StopStrings } from "./stop-strings.ts";

export interface ChoicesContext {
  readonly engine: SequenceEngine;
  readonly tokenizer: Tokenizer;
  readonly eosTokenIds: readonly number[];
  /** Called for requests with a constraint only. */
  readonly grammars: () => Grammars;
  /** Names calls of tools. */
  readonly newId: () => string;
}

/** What has been made of the request before. */
export interface ReadyRequest {
  readonly prompts: readonly PreparedPrompt[];
  readonly maxTokens: number;
  /** The request's own. */
  readonly stopStrings: StopStrings;
  readonly reuse: PrefixReuse | undefined;
  readonly signal: AbortSignal;
}

/**
 * @returns the choices of the first prompt, then of the second, …; `bestOf` for each
 * @throws as the engine does; `invalid_value`, `aborted`
 */
export async function openChoices(
  context: ChoicesContext,
  request: GenerationRequest,
  { prompts, maxTokens, stopStrings, reuse, signal }: ReadyRequest,
): Promise<Choice[]> {
  const { engine, tokenizer, grammars } = context;
  const { minTokens, bestOf, echo, numLogprobs } = request;
  const bannedSequences = await encodeBadWords(tokenizer, request.badWords ?? [], signal);
  const numPromptLogprobs = request.numPromptLogprobs ?? (echo ? numLogprobs : undefined);
  // best_of ranks samples by log-probability, whether or not they are returned.
  const numScored = numLogprobs ?? (bestOf > request.numChoices ? 0 : undefined);
  const stopTokenIds = stopTokens(context, request);
  const isSaved = request.saveAs !== undefined || request.returnsState === true;
  const makeMatchers =
    request.constraint === undefined || maxTokens === 0
      ? []
      : await openMatchers(grammars(), request, { prompts, tokenizer, stopTokenIds });
  const echoesPrompts = echo || numPromptLogprobs !== undefined;
  const echoedPrompts = echoesPrompts ? await echoPrompts(tokenizer, prompts, request) : [];
  await engine.wake?.(signal);
  const admitted = admit(engine, prompts, bestOf, {
    sampling: { ...request.sampling, ...(bannedSequences.length > 0 && { bannedSequences }) },
    vocabSize: tokenizer.vocabSize,
    maxTokens,
    minTokens,
    stopTokenIds,
    makeMatcher: (prompt) => makeMatchers[prompt]?.(),
    ...(numScored !== undefined && { numLogprobs: numScored }),
    ...(numPromptLogprobs !== undefined && { numPromptLogprobs }),
    ...(request.ranksPrompt && { ranksPrompt: true }),
    capturesEnd: (prompt) => isSaved || cachesEnd(request, { prompt }, reuse),
    // A stop string cuts off tokens that the state has read by then.
    capturesPrompt: isSaved && request.stopStrings.length > 0,
    signal,
  });
  const sequences = await admitted.catch((error) => {
    throw aboutField(error, bestOf > 1 ? "n" : request.names.prompts); // too many sequences
  });
  const ofPrompts = prompts.map((prompt, index) => ({
    ...stopStringsFor(prompt, request, stopStrings),
    echoedPrompt: echoedPrompts[index],
    newCallId: () => newCallId(prompt, context.newId),
  }));
  return sequences.map((sequence, index) => {
    const promptIndex = Math.floor(index / bestOf);
    return new Choice(index, prompts[promptIndex]!, sequence, {
      tokenizer,
      stopTokenIds,
      minTokens,
      includeStopString: request.includeStopString,
      skipSpecialTokens: request.skipSpecialTokens,
      returnsLogprobs: numLogprobs !== undefined,
      scoresStopToken: request.scoresStopToken ?? true,
      ...ofPrompts[promptIndex]!,
    });
  });
}

function stopTokens(
  { eosTokenIds, tokenizer }: ChoicesContext,
  { stopTokenIds, ignoreEos }: GenerationRequest,
): ReadonlySet<number> {
  return new Set(ignoreEos ? stopTokenIds : [...stopTokenIds, ...eosTokenIds, ...tokenizer.endTokenIds]);
}

async function echoPrompts(
  tokenizer: Tokenizer,
  prompts: readonly PreparedPrompt[],
  request: GenerationRequest,
): Promise<EchoedPrompt[]> {
  const echoed: EchoedPrompt[] = [];
  for (const prompt of prompts) {
    echoed.push(await echoPrompt(tokenizer, prompt, request));
    // Many short prompts take as long as a long one.
    await setImmediate();
  }
  return echoed;
}

/** Models without reasoning need one automaton only. */
function stopStringsFor(
  prompt: PreparedPrompt,
  request: GenerationRequest,
  stopStrings: StopStrings,
): Pick<ChoiceOptions, "stopStrings" | "turnEnds"> {
  if (prompt.stopStrings.length === 0) return { stopStrings };
  if (prompt.reasoning !== undefined) return { stopStrings, turnEnds: new StopStrings(prompt.stopStrings) };
  return { stopStrings: new StopStrings([...request.stopStrings, ...prompt.stopStrings]) };
}

function newCallId({ toolCalls }: PreparedPrompt, newId: () => string): string {
  const id = newId();
  return toolCalls?.format.hasShortIds ? id.slice(0, 9) : `call_${id}`;
}
