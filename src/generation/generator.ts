/**
 * One request → one stream of events: prompts become tokens, those read before are found, sequences are admitted, their
 * tokens become text, and what was to be kept is kept before the end is told. Between transports and engine; knows neither
 * HTTP nor OpenAI.
 */
import { setTimeout as delay, setImmediate } from "node:timers/promises";
import { aboutField, DenseMambaError } from "../errors.ts";
import type { Manifest } from "../model/artifact.ts";
import { stateBytes } from "../model/state.ts";
import { PendingPrefixes } from "../prefix/pending-prefixes.ts";
import { PrefixReuse, type PrefixStates } from "../prefix/prefix-reuse.ts";
import { Conversations, type KeepingPolicy, type Lease } from "../sessions/conversations.ts";
import type { StateStore } from "../sessions/stores/store.ts";
import { ChatRenderer } from "../tokenizer/chat-template.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { admit, type SequenceEngine } from "./admission.ts";
import { selectBest } from "./best-of.ts";
import { checkAnswerSize, checkRequest, type GenerationLimits } from "./check-request.ts";
import { Choice, type ChoiceOptions } from "./choice.ts";
import type { GenerationEvent, GenerationRequest, GenerationUsage } from "./events.ts";
import type { KeepingContext } from "./keeping.ts";
import { mergeChoices } from "./merge.ts";
import { type PreparedPrompt, preparePrompt } from "./prompts.ts";
import { keepsEnd, RunningRequest } from "./running-request.ts";
import { type ShownPrompt, showPrompt } from "./shown-prompt.ts";
import { StopStrings } from "./stop-strings.ts";

export interface GeneratorDeps {
  readonly engine: SequenceEngine;
  readonly tokenizer: Tokenizer;
  readonly manifest: Manifest;
  readonly store: StateStore;
  /** Memory alone, for responses that are not to be stored. Default: `store`. */
  readonly unstored?: StateStore;
  /** Without it every prompt that does not continue from a conversation is read from its beginning. */
  readonly prefixCache?: PrefixStates;
  /** Whose requests continue from each other's prompts: those of one owner, or everybody's. Default: `owner`. */
  readonly prefixScope?: "owner" | "all";
  readonly limits: GenerationLimits;
  /** How long, and how much for one owner, conversations are kept. Default: without bounds. */
  readonly keeping?: KeepingPolicy;
  /** Names sessions that are created without an id. */
  readonly newId: () => string;
  /** Unix time in milliseconds. */
  readonly nowMs: () => number;
  /** Resolves after `ms`, or as soon as the signal is aborted. */
  readonly sleep?: (ms: number, signal: AbortSignal) => Promise<void>;
}

export class Generator {
  readonly tokenizer: Tokenizer;
  readonly conversations: Conversations;
  readonly #engine: SequenceEngine;
  readonly #manifest: Manifest;
  readonly #limits: GenerationLimits;
  readonly #renderer: ChatRenderer;
  readonly #prefixCache: PrefixStates | undefined;
  readonly #prefixScope: "owner" | "all";
  readonly #nowMs: () => number;
  readonly #sleep: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly #running = new Set<RunningRequest>();
  readonly #pendingPrefixes = new PendingPrefixes();
  /** Aborted as the server begins to shut down: what is not admitted by then never is. */
  readonly #stopping = new AbortController();

  constructor(deps: GeneratorDeps) {
    const {
      engine,
      tokenizer,
      manifest,
      store,
      unstored = store,
      prefixCache,
      prefixScope = "owner",
      limits,
      keeping = {},
      newId,
      nowMs,
    } = deps;
    this.tokenizer = tokenizer;
    const maxUnreadTokens = Math.max(limits.maxPromptTokens, limits.maxOutputTokens);
    this.conversations = new Conversations({
      store,
      unstored,
      manifest,
      newId,
      nowMs,
      policy: keeping,
      maxUnreadTokens,
    });
    this.#prefixCache = prefixCache;
    this.#prefixScope = prefixScope;
    this.#engine = engine;
    this.#manifest = manifest;
    this.#limits = limits;
    this.#renderer = new ChatRenderer(tokenizer, { nowMs });
    this.#nowMs = nowMs;
    this.#sleep = deps.sleep ?? sleepUnlessAborted;
  }

  /**
   * Nothing happens before the first `next()`. What is wrong with the request, and a full queue, is thrown before
   * `accepted`; later failures are the runtime's, or `shutting_down` when the engine interrupted the request: what it keeps is
   * kept then, as far as it had come. Leaving the iteration early aborts.
   */
  async *generate(request: GenerationRequest): AsyncGenerator<GenerationEvent, void, undefined> {
    const abort = new AbortController();
    const signal = AbortSignal.any([request.signal, abort.signal]);
    let lease: Lease | undefined;
    let running: RunningRequest | undefined;
    let reuse: PrefixReuse | undefined;
    let hasEnded = false;
    try {
      const maxTokens = checkRequest(request, this.#limits, this.#manifest.sizes.vocabSize);
      const stopStrings = new StopStrings(request.stopStrings);
      throwIfAborted(signal);
      lease = await this.conversations.open(request.owner, request.resumeFrom, request.keepAs);
      reuse = this.#reuse(request);
      const prompts = await this.#prepare(request, { lease, reuse, signal });
      throwIfAborted(signal);
      checkAnswerSize(request, prompts, maxTokens, this.#limits);

      const choices = await this.#admit(request, prompts, { maxTokens, stopStrings, reuse, signal });
      running = new RunningRequest({ context: this.#keepingContext, request, choices, lease, reuse });
      this.#running.add(running);
      yield { type: "accepted", prompts: prompts.map(asAccepted) };

      const merged = mergeChoices(choices);
      const isSelected = request.bestOf > request.numChoices;
      for await (let event of isSelected ? selectBest(merged, choices, this.tokenizer, request) : merged) {
        if (event.type === "finished" && !isSelected) {
          const isAborted = event.reason === "aborted";
          const { isKept } = await running.settle(choices[event.index]!, { isAborted });
          if (!isKept) event = { ...event, isKept };
        }
        if (!running.isTaken) yield event;
      }
      if (running.isCutShort) {
        await running.saveInterrupted();
        throw cutShort(request);
      }
      hasEnded = true;
      yield { type: "usage", usage: this.#usage(prompts, choices) };
    } finally {
      // Left early, or failed: what still runs must not run on.
      if (!hasEnded) abort.abort();
      reuse?.end();
      await lease?.release();
      if (running) {
        this.#running.delete(running);
        running.end();
      }
    }
  }

  /**
   * Resolves when every request that was admitted has ended and what it keeps is kept. For the end of the server's life:
   * the engine closes or interrupts at the same time, or they may go on for long. What consumers have not read `graceMs` later
   * is read in their place, so that one who reads nothing cannot keep a session from being kept.
   */
  async drain({ graceMs }: { readonly graceMs: number }): Promise<void> {
    this.#stopping.abort();
    const running = [...this.#running];
    const patience = new AbortController();
    const isOver = this.#sleep(graceMs, patience.signal);
    const whenOver = async (request: RunningRequest) => {
      await isOver;
      if (!patience.signal.aborted) await request.readForNobody();
    };
    await Promise.all(running.map((request) => Promise.race([request.ended, whenOver(request)])));
    patience.abort();
  }

  /** Ends the processes that render chats. No chat can be answered afterwards. */
  close(): void {
    this.#renderer.close();
  }

  /** Log-probabilities of a prompt need all of it to be read, and whoever asks for them continues from none. */
  #reuse(request: GenerationRequest): PrefixReuse | undefined {
    const { owner, cacheSalt: salt = "", numPromptLogprobs, echo, numLogprobs } = request;
    const scoresPrompt = numPromptLogprobs !== undefined || (echo && numLogprobs !== undefined);
    if (this.#prefixCache === undefined || scoresPrompt) return undefined;
    return new PrefixReuse(this.#prefixCache, this.#pendingPrefixes.open(), {
      owner: this.#prefixScope === "all" ? "" : owner,
      salt,
    });
  }

  async #prepare(
    request: GenerationRequest,
    derived: { readonly lease: Lease; readonly reuse: PrefixReuse | undefined; readonly signal: AbortSignal },
  ): Promise<PreparedPrompt[]> {
    const { lease, reuse, signal } = derived;
    const context = {
      tokenizer: this.tokenizer,
      renderer: this.#renderer,
      vocabSize: this.#manifest.sizes.vocabSize,
      maxPromptTokens: this.#limits.maxPromptTokens,
      signal: AbortSignal.any([signal, this.#stopping.signal]),
    };
    const { snapshot } = lease;
    const origin = snapshot && { snapshot, loadHistory: lease.loadHistory };
    const prompts = request.prompts.map(async (given) => {
      const prompt = await preparePrompt(context, given, request, origin);
      return reuse === undefined ? prompt : reuse.resume(prompt, signal);
    });
    try {
      return await Promise.all(prompts);
    } catch (error) {
      const isCutShort = this.#stopping.signal.aborted && !signal.aborted;
      throw isCutShort ? new DenseMambaError("shutting_down", "the server is shutting down", { cause: error }) : error;
    }
  }

  async #admit(
    request: GenerationRequest,
    prompts: readonly PreparedPrompt[],
    derived: {
      readonly maxTokens: number;
      readonly stopStrings: StopStrings;
      readonly reuse: PrefixReuse | undefined;
      readonly signal: AbortSignal;
    },
  ): Promise<Choice[]> {
    const { sampling, minTokens, bestOf, echo, numLogprobs } = request;
    const numPromptLogprobs = request.numPromptLogprobs ?? (echo ? numLogprobs : undefined);
    const showsPrompt = echo || numPromptLogprobs !== undefined;
    // The samples are ranked by their log-probabilities, whether or not anyone wants to see them.
    const numScored = numLogprobs ?? (bestOf > request.numChoices ? 0 : undefined);
    const stopTokenIds = this.#stopTokenIds(request);
    const shownPrompts: ShownPrompt[] = [];
    for (const prompt of showsPrompt ? prompts : []) {
      shownPrompts.push(await showPrompt(this.tokenizer, prompt, request));
      // Many prompts take as long as one that is long.
      await setImmediate();
    }
    const admitted = admit(this.#engine, prompts, bestOf, {
      sampling,
      vocabSize: this.tokenizer.vocabSize,
      maxTokens: derived.maxTokens,
      minTokens,
      stopTokenIds,
      ...(numScored !== undefined && { numLogprobs: numScored }),
      ...(numPromptLogprobs !== undefined && { numPromptLogprobs }),
      capturesEnd: (prompt) => request.keepAs !== undefined || keepsEnd(request, { prompt }, derived.reuse),
      // A stop string ends an answer before its last tokens, which the state has read by then.
      capturesPrompt: request.keepAs !== undefined && request.stopStrings.length > 0,
      signal: derived.signal,
    });
    const sequences = await admitted.catch((error) => {
      throw aboutField(error, bestOf > 1 ? "n" : request.names.prompts); // there are too many
    });
    const options: Omit<ChoiceOptions, "stopStrings" | "shownPrompt"> = {
      tokenizer: this.tokenizer,
      stopTokenIds,
      minTokens,
      includeStopString: request.includeStopString,
      skipSpecialTokens: request.skipSpecialTokens,
      showLogprobs: numLogprobs !== undefined,
    };
    return sequences.map((sequence, index) => {
      const promptIndex = Math.floor(index / bestOf);
      const prompt = prompts[promptIndex]!;
      const stopStrings =
        prompt.stopStrings.length === 0
          ? derived.stopStrings
          : new StopStrings([...request.stopStrings, ...prompt.stopStrings]);
      return new Choice(index, prompt, sequence, { ...options, stopStrings, shownPrompt: shownPrompts[promptIndex] });
    });
  }

  #stopTokenIds({ stopTokenIds, ignoreEos }: GenerationRequest): ReadonlySet<number> {
    if (ignoreEos) return new Set(stopTokenIds);
    return new Set([...stopTokenIds, ...this.#manifest.eosTokenIds, ...this.tokenizer.endTokenIds]);
  }

  get #keepingContext(): KeepingContext {
    return { tokenizer: this.tokenizer, modelHash: this.#manifest.modelHash, nowMs: this.#nowMs };
  }

  #usage(prompts: readonly PreparedPrompt[], choices: readonly Choice[]): GenerationUsage {
    return {
      promptTokens: prompts.reduce((sum, { numTokens }) => sum + numTokens, 0),
      cachedTokens: prompts.reduce((sum, { cachedTokens }) => sum + cachedTokens, 0),
      completionTokens: choices.reduce((sum, { numTokens }) => sum + numTokens, 0),
      stateBytes: stateBytes(this.#manifest.state),
    };
  }
}

function asAccepted(prompt: PreparedPrompt) {
  return {
    get tokenIds() {
      return prompt.tokenIds;
    },
    cachedTokens: prompt.cachedTokens,
  };
}

function throwIfAborted(signal: AbortSignal): void {
  if (signal.aborted) throw new DenseMambaError("aborted", "the request was aborted before it was admitted");
}

function cutShort({ keepAs }: GenerationRequest): DenseMambaError {
  const kept = keepAs === undefined ? "" : `; ${keepAs.type} ${keepAs.id} is kept as far as it had come`;
  return new DenseMambaError("shutting_down", `the server shut down before the answer ended${kept}`);
}

async function sleepUnlessAborted(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal }).catch(() => undefined);
}
