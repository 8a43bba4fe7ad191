/**
 * One request → one stream of events: prompts become tokens and resume from cached or stored
 * states, sequences are admitted, their tokens become text, and the conversation is saved before
 * the end is sent. Between transports and engine; knows neither HTTP nor OpenAI.
 */
import { setTimeout as delay, setImmediate } from "node:timers/promises";
import { aboutField, DenseMambaError } from "../errors.ts";
import { Grammars } from "../grammar/grammars.ts";
import type { Manifest } from "../model/artifact.ts";
import { stateBytes } from "../model/state.ts";
import { PendingPrefixes } from "../prefix/pending-prefixes.ts";
import { PrefixReuse, type PrefixStates } from "../prefix/prefix-reuse.ts";
import { GREEDY } from "../sampling/params.ts";
import type { ConversationSnapshot } from "../sessions/conversation.ts";
import { Conversations, type RetentionPolicy } from "../sessions/conversations.ts";
import type { Lease } from "../sessions/lease.ts";
import type { StateStore } from "../sessions/stores/store.ts";
import { ChatRenderer } from "../tokenizer/chat-template.ts";
import type { ReasoningFormat } from "../tokenizer/reasoning-tags.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { ToolFormatName } from "../tokenizer/tool-formats.ts";
import type { SequenceEngine } from "./admission.ts";
import { checkAnswerSize, checkRequest, type GenerationLimits, promptTooLong } from "./check-request.ts";
import type { Choice } from "./choice.ts";
import { mergeChoices, selectBest } from "./choice-events.ts";
import { checkConstraint } from "./constrained-answers.ts";
import { embedPrompts } from "./embedding.ts";
import type {
  AcceptedPrompt,
  Continuation,
  Embeddings,
  EmbedRequest,
  GenerationEvent,
  GenerationRequest,
  GenerationUsage,
  PromptRequest,
  ScoredContinuations,
  ScoreRequest,
} from "./events.ts";
import { type ChoicesContext, openChoices } from "./open-choices.ts";
import { PromptPreparer } from "./prompt-preparer.ts";
import { encodeContinuation, type PreparedPrompt } from "./prompts.ts";
import { RunningRequest } from "./running-request.ts";
import { scoreContinuations } from "./scoring.ts";
import { StopStrings } from "./stop-strings.ts";
import { toolConstraint } from "./tool-constraint.ts";

export interface GeneratorDeps {
  readonly engine: SequenceEngine;
  readonly tokenizer: Tokenizer;
  readonly manifest: Manifest;
  readonly store: StateStore;
  /** Memory only, for responses with `store: false`. Default: `store`. */
  readonly unstored?: StateStore;
  /** For constraints on answers. Default: made at first use. */
  readonly grammars?: Grammars;
  /** Without it only stored conversations are resumed. */
  readonly prefixCache?: PrefixStates;
  /** Which requests share cached prefixes: those of one owner, or all. Default: `owner`. */
  readonly prefixScope?: "owner" | "all";
  readonly limits: GenerationLimits;
  /** How the reasoning in answers to chats is told from their content. Default: `auto`. */
  readonly reasoning?: ReasoningFormat;
  /** How calls of tools are told from their content. Default: `auto`. */
  readonly toolCallParser?: ToolFormatName;
  /** Of states that clients keep. Default: its own. */
  readonly stateSecret?: string | undefined;
  /** Personas that the server was started with. Default: none. */
  readonly personas?: ReadonlyMap<string, ConversationSnapshot>;
  /** How long conversations are stored, and how many for one owner. Default: without bounds. */
  readonly retention?: RetentionPolicy;
  /** Names sessions that are created without an id, and calls of tools. */
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
  readonly #choicesContext: ChoicesContext;
  readonly #manifest: Manifest;
  readonly #limits: GenerationLimits;
  readonly #renderer: ChatRenderer;
  #grammars: Grammars | undefined;
  readonly #prefixCache: PrefixStates | undefined;
  readonly #prefixScope: "owner" | "all";
  readonly #nowMs: () => number;
  readonly #sleep: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly #running = new Set<RunningRequest>();
  readonly #pendingPrefixes = new PendingPrefixes();
  /** Aborted when the server begins to shut down: nothing is admitted from then on. */
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
      grammars,
      reasoning = "auto",
      toolCallParser = "auto",
      retention = {},
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
      policy: retention,
      stateSecret: deps.stateSecret,
      ...(deps.personas && { personas: deps.personas }),
      maxUnreadTokens,
    });
    this.#prefixCache = prefixCache;
    this.#prefixScope = prefixScope;
    this.#engine = engine;
    this.#manifest = manifest;
    this.#limits = limits;
    this.#grammars = grammars;
    this.#renderer = new ChatRenderer(tokenizer, { nowMs, reasoning, toolCallParser });
    const { eosTokenIds } = manifest;
    this.#choicesContext = { engine, tokenizer, eosTokenIds, grammars: () => this.#grammarsOfModel, newId };
    this.#nowMs = nowMs;
    this.#sleep = deps.sleep ?? sleepUnlessAborted;
  }

  /**
   * Nothing happens before the first `next()`. An invalid request or a full queue throws before
   * `accepted`. Later failures are the runtime's, or `shutting_down` when the engine interrupted
   * the request: its conversation is saved up to that point. Leaving the iteration early aborts.
   */
  async *generate(given: GenerationRequest): AsyncGenerator<GenerationEvent, void, undefined> {
    const request = this.#withCallsConstrained(given);
    const abort = new AbortController();
    const signal = AbortSignal.any([request.signal, abort.signal]);
    let lease: Lease | undefined;
    let running: RunningRequest | undefined;
    let reuse: PrefixReuse | undefined;
    let hasEnded = false;
    try {
      const maxTokens = checkRequest(request, this.#limits, this.#manifest.sizes.vocabSize);
      const stopStrings = new StopStrings(request.stopStrings);
      if (request.constraint !== undefined) checkConstraint(this.#grammarsOfModel, request);
      throwIfAborted(signal);
      lease = await this.conversations.open(request.owner, request.resumeFrom, request.saveAs);
      reuse = this.#reuse(request, lease);
      const prompts = await this.#prepare(request, { lease, reuse, signal });
      throwIfAborted(signal);
      checkAnswerSize(request, prompts, maxTokens, this.#limits);

      const choices = await openChoices(this.#choicesContext, request, {
        prompts,
        maxTokens,
        stopStrings,
        reuse,
        signal,
      });
      running = new RunningRequest({
        tokenizer: this.tokenizer,
        modelHash: this.#manifest.modelHash,
        nowMs: this.#nowMs,
        request,
        choices,
        lease,
        reuse,
        states: this.conversations.states,
      });
      this.#running.add(running);
      lease.keepCheckpoint();
      yield { type: "accepted", prompts: prompts.map(asAccepted) };

      const merged = mergeChoices(choices);
      const isSelected = request.bestOf > request.numChoices;
      for await (let event of isSelected ? selectBest(merged, choices, this.tokenizer, request) : merged) {
        if (event.type === "finished" && !isSelected) {
          const isAborted = event.reason === "aborted";
          const { isSaved, state } = await running.save(choices[event.index]!, { isAborted });
          if (!isSaved) event = { ...event, isSaved };
          if (state !== undefined) event = { ...event, state };
        }
        if (!running.isDrained) yield event;
      }
      if (running.isCutShort) {
        await running.saveInterrupted();
        throw cutShort(request);
      }
      hasEnded = true;
      yield { type: "usage", usage: this.#usage(prompts, choices) };
    } finally {
      // Left early or failed: the other choices must stop.
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
   * The prompt as `generate` would read it. Reads nothing.
   * @throws as `generate` does for a prompt
   */
  async encodePrompt(request: PromptRequest): Promise<AcceptedPrompt> {
    const lease = await this.conversations.open(request.owner, request.resumeFrom, undefined);
    try {
      const options = { lease, reuse: undefined, signal: request.signal };
      const [prompt] = await this.#prepare({ ...request, sampling: GREEDY }, options);
      return asAccepted(prompt!);
    } finally {
      await lease.release();
    }
  }

  /**
   * How likely each continuation of the prompt is. The prompt is read once.
   * @throws as `generate` does
   */
  async score(request: ScoreRequest): Promise<ScoredContinuations> {
    const abort = new AbortController();
    const signal = AbortSignal.any([request.signal, abort.signal]);
    const lease = await this.conversations.open(request.owner, request.resumeFrom, undefined);
    const reuse = this.#reuse(request, lease);
    try {
      const [prompt] = await this.#prepare({ ...request, sampling: GREEDY }, { lease, reuse, signal });
      const continuations: (readonly number[])[] = [];
      for (const given of request.continuations) continuations.push(await this.#encodeContinuation(given, signal));
      await this.#engine.wake?.(signal);
      throwIfAborted(signal);
      const scores = await scoreContinuations(this.#engine, prompt!, continuations, signal);
      return { prompt: asAccepted(prompt!), scores };
    } finally {
      // Of several sequences one may have failed: the others must stop.
      abort.abort();
      reuse?.end();
      await lease.release();
    }
  }

  /**
   * A vector for each prompt.
   * @throws as `generate` does
   */
  async embed(request: EmbedRequest): Promise<Embeddings> {
    const abort = new AbortController();
    const signal = AbortSignal.any([request.signal, abort.signal]);
    const { names, pooling } = request;
    const lease = await this.conversations.open(request.owner, undefined, undefined);
    try {
      const prompts: PreparedPrompt[] = [];
      for (const [index, prompt] of request.prompts.entries()) {
        const name = request.prompts.length === 1 ? names.prompts : `${names.prompts}[${index}]`;
        const one = { ...request, prompts: [prompt], names: { ...names, prompts: name }, sampling: GREEDY };
        prompts.push(...(await this.#prepare(one, { lease, reuse: undefined, signal })));
        // Many short prompts take as long as a long one.
        await setImmediate();
      }
      await this.#engine.wake?.(signal);
      throwIfAborted(signal);
      const vectors = await embedPrompts(this.#engine, prompts, pooling, signal);
      return { numTokens: prompts.reduce((sum, { numTokens }) => sum + numTokens, 0), vectors };
    } finally {
      abort.abort();
      await lease.release();
    }
  }

  /** @throws `invalid_value` without a token, `prompt_too_long` */
  async #encodeContinuation({ text, param }: Continuation, signal: AbortSignal): Promise<readonly number[]> {
    const { maxPromptTokens } = this.#limits;
    const limits = { maxTokens: maxPromptTokens, signal: AbortSignal.any([signal, this.#stopping.signal]) };
    const ids = await encodeContinuation(this.tokenizer, text, limits).catch((error: unknown) => {
      throw aboutField(error, param);
    });
    if (ids.length > maxPromptTokens) throw promptTooLong(param, ids.length, maxPromptTokens);
    if (ids.length > 0) return ids;
    throw new DenseMambaError("invalid_value", `${param} must hold at least one token, given 0`, { param });
  }

  /**
   * For shutdown: resolves when every admitted request has ended and is saved. The caller also
   * closes or interrupts the engine, or this may take long. After `graceMs` unread events are read
   * and dropped, so that a client that has stopped reading cannot prevent its session from being
   * saved.
   */
  async drain({ graceMs }: { readonly graceMs: number }): Promise<void> {
    this.#stopping.abort();
    const running = [...this.#running];
    const grace = new AbortController();
    const graceOver = this.#sleep(graceMs, grace.signal);
    const drainLate = async (request: RunningRequest) => {
      await graceOver;
      if (!grace.signal.aborted) await request.drain();
    };
    await Promise.all(running.map((request) => Promise.race([request.ended, drainLate(request)])));
    grace.abort();
  }

  /** Ends the processes that render chats. No chat can be answered afterwards. */
  close(): void {
    this.#renderer.close();
  }

  #withCallsConstrained(request: GenerationRequest): GenerationRequest {
    const [prompt] = request.prompts;
    if (prompt?.type !== "chat" || prompt.tools === undefined) return request;
    const constraint = toolConstraint(prompt.tools, this.#renderer.toolFormat(prompt.template), request.constraint);
    return constraint === undefined ? request : { ...request, constraint };
  }

  get #grammarsOfModel(): Grammars {
    this.#grammars ??= new Grammars(this.tokenizer, { now: () => performance.now() });
    return this.#grammars;
  }

  /** Undefined with prompt log-probabilities, for which the whole prompt must be read. */
  #reuse(
    request: Pick<GenerationRequest, "owner" | "cacheSalt"> &
      Partial<Pick<GenerationRequest, "numPromptLogprobs" | "echo" | "numLogprobs">>,
    { resumed }: Lease,
  ): PrefixReuse | undefined {
    const { owner, cacheSalt: salt = "", numPromptLogprobs, echo = false, numLogprobs } = request;
    const scoresPrompt = numPromptLogprobs !== undefined || (echo && numLogprobs !== undefined);
    if (this.#prefixCache === undefined || scoresPrompt) return undefined;
    return new PrefixReuse(this.#prefixCache, this.#pendingPrefixes.open(), {
      owner: this.#prefixScope === "all" ? "" : owner,
      salt,
      personaHash: resumed?.personaHash,
    });
  }

  async #prepare(
    request: PromptRequest & Pick<GenerationRequest, "sampling" | "returnTokenIds">,
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
    const preparer = new PromptPreparer(context, request, lease.resumed);
    const prompts = request.prompts.map(async (given) => {
      const prompt = await preparer.prepare(given);
      return reuse === undefined ? prompt : reuse.resume(prompt, signal);
    });
    try {
      return await Promise.all(prompts);
    } catch (error) {
      const isCutShort = this.#stopping.signal.aborted && !signal.aborted;
      throw isCutShort ? new DenseMambaError("shutting_down", "the server is shutting down", { cause: error }) : error;
    }
  }

  #usage(prompts: readonly PreparedPrompt[], choices: readonly Choice[]): GenerationUsage {
    const ttftMs = Math.min(...choices.map((choice) => choice.ttftMs ?? Number.POSITIVE_INFINITY));
    return {
      promptTokens: prompts.reduce((sum, { numTokens }) => sum + numTokens, 0),
      cachedTokens: prompts.reduce((sum, { cachedTokens }) => sum + cachedTokens, 0),
      completionTokens: choices.reduce((sum, { numTokens }) => sum + numTokens, 0),
      ...(prompts.some(({ reasoning }) => reasoning !== undefined) && {
        reasoningTokens: choices.reduce((sum, { numReasoningTokens }) => sum + numReasoningTokens, 0),
      }),
      stateBytes: stateBytes(this.#manifest.state),
      finishReasons: choices.flatMap(({ finishReason }) => finishReason ?? []),
      ...(Number.isFinite(ttftMs) && { ttftMs }),
    };
  }
}

function asAccepted(prompt: PreparedPrompt): AcceptedPrompt {
  return {
    numTokens: prompt.numTokens,
    get tokenIds() {
      return prompt.tokenIds;
    },
    cachedTokens: prompt.cachedTokens,
  };
}

function throwIfAborted(signal: AbortSignal): void {
  if (signal.aborted) throw new DenseMambaError("aborted", "the request was aborted before it was admitted");
}

function cutShort({ saveAs }: GenerationRequest): DenseMambaError {
  const saved = saveAs === undefined ? "" : `; ${saveAs.type} ${saveAs.id} is saved up to this point`;
  return new DenseMambaError("shutting_down", `the server shut down before the answer ended${saved}`);
}

async function sleepUnlessAborted(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal }).catch(() => undefined);
}
