/**
 * One request → one stream of events: prompts become tokens, sequences are admitted, their tokens become text, and what
 * was to be kept is kept before the end is told. Between transports and engine; knows neither HTTP nor OpenAI.
 */
import { DenseMambaError } from "../errors.ts";
import type { Manifest } from "../model/artifact.ts";
import { stateBytes } from "../model/state.ts";
import type { StateStore } from "../session/store.ts";
import { ChatRenderer } from "../tokenizer/chat-template.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { admit, type SequenceEngine } from "./admission.ts";
import { selectBest } from "./best-of.ts";
import { Choice, type ChoiceOptions } from "./choice.ts";
import { conclude } from "./conversation.ts";
import { Conversations, type Lease } from "./conversations.ts";
import type { GenerationEvent, GenerationRequest, GenerationUsage } from "./events.ts";
import { mergeChoices } from "./merge.ts";
import { checkTokenIds, type PreparedPrompt, preparePrompt } from "./prompts.ts";
import { StopStrings } from "./stop-strings.ts";

/** Of one prompt. The engine refuses what its queue cannot take; this bounds what is built before it is asked. */
const MAX_SAMPLES = 1024;

export interface GeneratorDeps {
  readonly engine: SequenceEngine;
  readonly tokenizer: Tokenizer;
  readonly manifest: Manifest;
  readonly store: StateStore;
  readonly limits: GenerationLimits;
  /** Names sessions that are created without an id. */
  readonly newId: () => string;
  /** Unix time in milliseconds. */
  readonly nowMs: () => number;
}

export interface GenerationLimits {
  /** Tokens that one prompt may make us read. */
  readonly maxPromptTokens: number;
  /** Tokens that one choice may have; what `maxTokens` undefined means. */
  readonly maxOutputTokens: number;
}

export class Generator {
  readonly tokenizer: Tokenizer;
  readonly conversations: Conversations;
  readonly #engine: SequenceEngine;
  readonly #manifest: Manifest;
  readonly #limits: GenerationLimits;
  readonly #renderer: ChatRenderer;
  readonly #nowMs: () => number;

  constructor({ engine, tokenizer, manifest, store, limits, newId, nowMs }: GeneratorDeps) {
    this.tokenizer = tokenizer;
    this.conversations = new Conversations({ store, manifest, newId, nowMs });
    this.#engine = engine;
    this.#manifest = manifest;
    this.#limits = limits;
    this.#renderer = new ChatRenderer(tokenizer);
    this.#nowMs = nowMs;
  }

  /**
   * Nothing happens before the first `next()`. What is wrong with the request, and a full queue, is thrown before
   * `accepted`; later failures are the runtime's. Leaving the iteration early aborts.
   */
  async *generate(request: GenerationRequest): AsyncGenerator<GenerationEvent, void, undefined> {
    const abort = new AbortController();
    const signal = AbortSignal.any([request.signal, abort.signal]);
    let lease: Lease | undefined;
    let hasEnded = false;
    try {
      const maxTokens = this.#check(request);
      const stopStrings = new StopStrings(request.stopStrings);
      throwIfAborted(signal);
      lease = await this.conversations.open(request.owner, request.resumeFrom, request.keepAs);
      const prompts = await this.#prepare(request, lease);
      throwIfAborted(signal);

      const choices = await this.#admit(request, prompts, { maxTokens, stopStrings, signal });
      yield { type: "accepted", prompts: prompts.map(({ tokenIds, cachedTokens }) => ({ tokenIds, cachedTokens })) };

      const merged = mergeChoices(choices);
      const shown = request.bestOf > request.numChoices ? selectBest(merged, choices, request) : merged;
      for await (const event of shown) {
        if (event.type === "finished" && choices.length === 1) {
          // Before the client hears of the end: its next request may follow at once.
          if (request.keepAs && event.reason !== "aborted") await this.#keep(request, choices[0]!, lease);
          await lease.release();
        }
        yield event;
      }
      hasEnded = true;
      yield { type: "usage", usage: this.#usage(prompts, choices) };
    } finally {
      // Left early, or failed: what still runs must not run on.
      if (!hasEnded) abort.abort();
      await lease?.release();
    }
  }

  /** @returns the tokens that a choice may have */
  #check(request: GenerationRequest): number {
    const { maxOutputTokens } = this.#limits;
    const { maxTokens = maxOutputTokens, minTokens, numChoices, bestOf, truncatePromptTokens } = request;
    checkInteger("prompt", "number of prompts", request.prompts.length, 1);
    checkInteger("n", "n", numChoices, 1, MAX_SAMPLES);
    checkInteger("best_of", "best_of", bestOf, numChoices, MAX_SAMPLES);
    checkInteger("max_tokens", "max_tokens", maxTokens, 0, maxOutputTokens);
    checkInteger("min_tokens", "min_tokens", minTokens, 0, maxTokens);
    if (truncatePromptTokens !== undefined) {
      checkInteger("truncate_prompt_tokens", "truncate_prompt_tokens", truncatePromptTokens, 1);
    }
    const { vocabSize } = this.#manifest.sizes;
    checkTokenIds(request.stopTokenIds, vocabSize, "stop_token_ids");
    checkTokenIds([...request.sampling.logitBias.keys()], vocabSize, "logit_bias");
    if ((request.resumeFrom || request.keepAs) && (request.prompts.length !== 1 || bestOf !== 1)) {
      throw new DenseMambaError(
        "invalid_value",
        `a kept conversation takes one prompt and one choice, given ${request.prompts.length} and ${bestOf}`,
        { param: numChoices > 1 ? "n" : "prompt" },
      );
    }
    return maxTokens;
  }

  #prepare(request: GenerationRequest, lease: Lease): Promise<PreparedPrompt[]> {
    const context = {
      tokenizer: this.tokenizer,
      renderer: this.#renderer,
      vocabSize: this.#manifest.sizes.vocabSize,
      maxPromptTokens: this.#limits.maxPromptTokens,
    };
    return Promise.all(request.prompts.map((prompt) => preparePrompt(context, prompt, request, lease.head)));
  }

  async #admit(
    request: GenerationRequest,
    prompts: readonly PreparedPrompt[],
    derived: { readonly maxTokens: number; readonly stopStrings: StopStrings; readonly signal: AbortSignal },
  ): Promise<Choice[]> {
    const { sampling, minTokens, bestOf, echo, numLogprobs } = request;
    const numPromptLogprobs = request.numPromptLogprobs ?? (echo ? numLogprobs : undefined);
    const showPrompt = echo || numPromptLogprobs !== undefined;
    // The samples are ranked by their log-probabilities, whether or not anyone wants to see them.
    const numScored = numLogprobs ?? (bestOf > request.numChoices ? 0 : undefined);
    const stopTokenIds = this.#stopTokenIds(request);
    const sequences = await admit(this.#engine, prompts, bestOf, {
      sampling,
      vocabSize: this.tokenizer.vocabSize,
      maxTokens: derived.maxTokens,
      minTokens,
      stopTokenIds,
      ...(numScored !== undefined && { numLogprobs: numScored }),
      ...(numPromptLogprobs !== undefined && { numPromptLogprobs }),
      ...(request.keepAs && { capture: { end: true } }),
      signal: derived.signal,
    });
    const options: Omit<ChoiceOptions, "stopStrings"> = {
      tokenizer: this.tokenizer,
      stopTokenIds,
      minTokens,
      includeStopString: request.includeStopString,
      skipSpecialTokens: request.skipSpecialTokens,
      showPrompt,
      showLogprobs: numLogprobs !== undefined,
    };
    return sequences.map((sequence, index) => {
      const prompt = prompts[Math.floor(index / bestOf)]!;
      const stopStrings =
        prompt.stopStrings.length === 0
          ? derived.stopStrings
          : new StopStrings([...request.stopStrings, ...prompt.stopStrings]);
      return new Choice(index, prompt, sequence, { ...options, stopStrings });
    });
  }

  #stopTokenIds({ stopTokenIds, ignoreEos }: GenerationRequest): ReadonlySet<number> {
    if (ignoreEos) return new Set(stopTokenIds);
    return new Set([...stopTokenIds, ...this.#manifest.eosTokenIds, ...this.tokenizer.endTokenIds]);
  }

  async #keep(request: GenerationRequest, choice: Choice, lease: Lease): Promise<void> {
    const { tokenIds, position, state } = choice.captured();
    const prompt = request.prompts[0]!;
    const conversation = {
      ...conclude(choice.prompt.conversation, {
        tokenIds,
        shown: choice.text,
        kept: prompt.type === "chat" ? this.#textBehind(choice.prompt.tokenIds, tokenIds) : "",
        continuesFinalMessage: prompt.type === "chat" && prompt.continueFinalMessage,
      }),
      createdAtMs: lease.createdAtMs,
      lastUsedAtMs: Math.max(this.#nowMs(), lease.lastUsedAtMs),
    };
    const { modelHash } = this.#manifest;
    await lease.keep({ snapshot: { modelHash, tokenIds, position, state, conversation }, conversation });
  }

  /** What the tokens say behind those that they begin with, special tokens included. */
  #textBehind(contextIds: readonly number[], tokenIds: readonly number[]): string {
    const stream = this.tokenizer.stream({ skipSpecialTokens: false, contextIds });
    let text = "";
    for (let i = contextIds.length; i < tokenIds.length; i++) text += stream.push(tokenIds[i]!);
    return text + stream.flush();
  }

  #usage(prompts: readonly PreparedPrompt[], choices: readonly Choice[]): GenerationUsage {
    return {
      promptTokens: prompts.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0),
      cachedTokens: prompts.reduce((sum, { cachedTokens }) => sum + cachedTokens, 0),
      completionTokens: choices.reduce((sum, { numTokens }) => sum + numTokens, 0),
      stateBytes: stateBytes(this.#manifest.state),
    };
  }
}

function checkInteger(param: string, what: string, value: number, min: number, max = Number.MAX_SAFE_INTEGER): void {
  if (Number.isInteger(value) && value >= min && value <= max) return;
  const bounds = max === Number.MAX_SAFE_INTEGER ? `at least ${min}` : `from ${min} to ${max}`;
  throw new DenseMambaError("invalid_value", `${what} must be an integer ${bounds}, given ${value}`, { param });
}

function throwIfAborted(signal: AbortSignal): void {
  if (signal.aborted) throw new DenseMambaError("aborted", "the request was aborted before it was admitted");
}
