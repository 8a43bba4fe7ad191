/**
 * One choice: turns its sequence's token events into text events. Decodes, tells reasoning from
 * content, stops the sequence at a stop string, counts. Called once per token, so it does little
 * and allocates little.
 */
import { strict as assert } from "node:assert";
import type { ResumePoint, Sequence, SequenceEvent } from "../engine/sequence.ts";
import type { ScoredToken, ScoreTable } from "../sampling/logprobs.ts";
import { historyTokens } from "../sessions/stores/snapshot.ts";
import type { TextStream, Tokenizer } from "../tokenizer/tokenizer.ts";
import { AnswerDeltas } from "./answer-deltas.ts";
import { type CollectedParts, GrowingText } from "./collected-deltas.ts";
import type { EchoedPrompt } from "./echo.ts";
import type { FinishedEvent, GenerationEvent, TokenDetail } from "./events.ts";
import type { PreparedPrompt } from "./prompts.ts";
import { ReasoningSplitter, type SplitText } from "./reasoning.ts";
import { type StopScan, StopStringMatcher, type StopStrings } from "./stop-strings.ts";
import { TextOffsets } from "./text-offsets.ts";
import { named, TokenDetails } from "./token-details.ts";
import { ToolCallSplitter } from "./tool-calls.ts";

/** The same for all choices of a request, except that a prompt's template may add stop strings. */
export interface ChoiceOptions {
  readonly tokenizer: Tokenizer;
  /** They count in content only. */
  readonly stopStrings: StopStrings;
  /** They count in reasoning too: they end an answer as a stop token does. Default: none. */
  readonly turnEnds?: StopStrings;
  /** The engine's: such a token ends the choice, and its text is not returned. */
  readonly stopTokenIds: ReadonlySet<number>;
  /** Stop strings count only in text after this many tokens. */
  readonly minTokens: number;
  readonly includeStopString: boolean;
  readonly skipSpecialTokens: boolean;
  /** Sent before the answer, if asked for. */
  readonly echoedPrompt: EchoedPrompt | undefined;
  readonly returnsLogprobs: boolean;
  /** Whether a stop token without text has a log-probability too. */
  readonly scoresStopToken: boolean;
  readonly newCallId: () => string;
}

export class Choice {
  readonly index: number;
  readonly prompt: PreparedPrompt;
  readonly #sequence: Sequence;
  readonly #options: ChoiceOptions;
  readonly #stream: TextStream;
  readonly #offsets = new TextOffsets();
  readonly #matcher: StopStringMatcher | undefined;
  readonly #turnEndMatcher: StopStringMatcher | undefined;
  /** Undefined if all of the text is content. */
  readonly #splitter: ReasoningSplitter | undefined;
  /** Undefined if calls are text like any other. */
  readonly #calls: ToolCallSplitter | undefined;
  readonly #deltas: AnswerDeltas;
  #numReasoningTokens = 0;
  #stoppedBy: string | number | undefined;
  #isStopped = false;
  /** The stop token that ended it, if its text was returned. */
  #returnedStopToken: number | undefined;
  #numTokens = 0;
  #sumLogprobs = 0;
  /**
   * The text before it is split, and its length after each token. Filled if a stop string may cut a
   * saved answer.
   */
  readonly #decoded = new GrowingText();
  readonly #textEnds: number[] = [];
  /** The state before the answer. */
  #promptPoint: ResumePoint | undefined;
  #captured: ResumePoint | undefined;
  #isInterrupted = false;
  #finishReason: FinishedEvent["reason"] | undefined;
  #ttftMs: number | undefined;

  constructor(index: number, prompt: PreparedPrompt, sequence: Sequence, options: ChoiceOptions) {
    this.index = index;
    this.prompt = prompt;
    this.#sequence = sequence;
    this.#options = options;
    const { tokenizer, stopStrings, turnEnds, skipSpecialTokens, includeStopString } = options;
    this.#stream = tokenizer.stream({ skipSpecialTokens, contextIds: prompt.contextIds });
    const matcherOf = (strings: StopStrings | undefined) =>
      strings === undefined || strings.isEmpty ? undefined : new StopStringMatcher(strings, { includeStopString });
    this.#matcher = matcherOf(stopStrings);
    this.#turnEndMatcher = matcherOf(turnEnds);
    this.#splitter = prompt.reasoning && new ReasoningSplitter(prompt.reasoning);
    this.#calls = prompt.toolCalls && new ToolCallSplitter(prompt.toolCalls);
    const mayReason = this.#splitter !== undefined;
    this.#deltas = new AnswerDeltas({ index, mayReason, calls: this.#calls, newCallId: options.newCallId });
  }

  get events(): AsyncIterable<SequenceEvent> {
    return this.#sequence.events;
  }

  /**
   * Tokens of the answer, a stop token included; those sampled after a stop string do not count.
   */
  get numTokens(): number {
    return this.#numTokens;
  }

  /** Undefined before its end. */
  get finishReason(): FinishedEvent["reason"] | undefined {
    return this.#finishReason;
  }

  /** From its arrival in the engine to its first token. Undefined before its end, and without one. */
  get ttftMs(): number | undefined {
    return this.#ttftMs;
  }

  /** Those up to the end of the reasoning, tags included. */
  get numReasoningTokens(): number {
    return this.#numReasoningTokens;
  }

  /** Mean over the answer's tokens, if log-probabilities were asked of the engine. */
  get meanLogprob(): number {
    return this.#numTokens === 0 ? Number.NEGATIVE_INFINITY : this.#sumLogprobs / this.#numTokens;
  }

  /** The engine stopped it early: there is no `finished`, and its state was captured. */
  get isInterrupted(): boolean {
    return this.#isInterrupted;
  }

  /** Whether the state at its end was captured. */
  get hasState(): boolean {
    return this.#captured !== undefined;
  }

  /** What the deltas so far say. */
  get sent(): CollectedParts {
    return this.#deltas.sent;
  }

  /** Appends the event's generation events to `out`. */
  accept(event: SequenceEvent, out: GenerationEvent[]): void {
    switch (event.type) {
      case "prompt":
        this.#promptPoint = event.captured;
        if (this.#options.echoedPrompt) out.push(this.#promptEvent(this.#options.echoedPrompt, event.logprobs));
        return;
      case "token":
        // The engine may be a step ahead of `stop()`.
        if (!this.#isStopped) this.#token(event.tokenId, event.scored, out);
        return;
      case "finished":
        this.#captured = event.captured;
        this.#finish(event, out);
    }
  }

  /**
   * The state at the end, and its tokens. Leaves out tokens sampled after the answer was stopped if
   * the state has not read them. Only after `finished`, and only if the end was captured.
   */
  endPoint(): ResumePoint {
    assert(this.#captured !== undefined, "the end was not captured");
    if (!this.#isStopped) return this.#captured;
    const { history, tokenIds, position, state } = this.#captured;
    const numUseful = Math.max(position, this.prompt.numTokens + this.#numTokens) - historyTokens(history);
    return { ...(history && { history }), tokenIds: tokenIds.slice(0, numUseful), position, state };
  }

  /**
   * The same for a conversation that goes on: exactly what the client received. If a stop string
   * was cut off, its tokens are left out, and the next request reads the answer again from the
   * state before it.
   * @param encode text that continues other text → its tokens
   */
  async endPointAsReturned(encode: (text: string) => Promise<readonly number[]>): Promise<ResumePoint> {
    const end = this.endPoint();
    const { history, tokenIds, position } = end;
    const tokens = { ...(history && { history }), tokenIds };
    if (this.#returnedStopToken !== undefined) {
      return { ...tokens, tokenIds: [...tokenIds, this.#returnedStopToken], position, state: end.state };
    }
    const isClients = typeof this.#stoppedBy === "string" && !this.prompt.stopStrings.includes(this.#stoppedBy);
    if (!isClients || this.#promptPoint === undefined) return end;
    const { numTokens, rest } = this.#splitReturned();
    const numPrompt = this.prompt.numTokens;
    const returned = tokenIds.slice(0, numPrompt + numTokens - historyTokens(history));
    if (rest === "" && position <= numPrompt + numTokens) {
      return { ...tokens, tokenIds: returned, position, state: end.state };
    }
    const { position: before, state } = this.#promptPoint;
    return { ...tokens, tokenIds: [...returned, ...(rest === "" ? [] : await encode(rest))], position: before, state };
  }

  /** The number of tokens whose text was returned in full, and what was returned of a cut token. */
  #splitReturned(): { readonly numTokens: number; readonly rest: string } {
    const text = this.#returnedText();
    const { length } = text;
    const numUpTo = (end: number) => (end === 0 ? 0 : this.#textEnds.findIndex((at) => at >= end) + 1);
    const numTokens = numUpTo(length);
    // Longer than the text of all tokens: it ends with an incomplete character.
    if (numTokens === 0 && length > 0) return { numTokens: this.#textEnds.length, rest: "" };
    if (length === 0 || this.#textEnds[numTokens - 1] === length) return { numTokens, rest: "" };
    const end = numTokens < 2 ? 0 : this.#textEnds[numTokens - 2]!;
    return { numTokens: numUpTo(end), rest: text.slice(end) };
  }

  /** As the tokens have it, with the reasoning before it. */
  #returnedText(): string {
    if (this.#splitter === undefined && this.#calls === undefined) return this.sent.text;
    return String(this.#decoded).slice(0, (this.#splitter?.contentStart ?? 0) + this.#deltas.contentLength);
  }

  #promptEvent({ text, textOffsets }: EchoedPrompt, scores: ScoreTable | undefined): GenerationEvent {
    const { echoIds } = this.prompt;
    // With no new tokens the engine reads, and scores, a token of the stored conversation.
    const logprobs = scores && new TokenDetails(scores, this.#options.tokenizer, scores.length - echoIds.length);
    return {
      type: "prompt",
      index: this.index,
      text,
      tokenIds: echoIds,
      ...(logprobs && { logprobs, textOffsets }),
    };
  }

  #token(tokenId: number, scored: ScoredToken | undefined, out: GenerationEvent[]): void {
    this.#numTokens++;
    if (scored) this.#sumLogprobs += scored.logprob;
    const { stopTokenIds, includeStopString, returnsLogprobs, scoresStopToken } = this.#options;
    const isStopToken = stopTokenIds.has(tokenId);
    let isScored = returnsLogprobs && (scoresStopToken || !isStopToken);
    const offset = this.#offsets.next;
    const wasContent = this.#splitter === undefined || this.#splitter.phase === "content";
    let split: SplitText = { reasoning: "", content: "" };
    if (includeStopString || !isStopToken) {
      const decoded = this.#stream.push(tokenId);
      if (isStopToken && decoded !== "") {
        this.#returnedStopToken = tokenId;
        isScored = returnsLogprobs;
      }
      if (returnsLogprobs) this.#offsets.add(decoded, this.#stream);
      const text = decoded + this.#hiddenTag(tokenId);
      if (this.#promptPoint !== undefined) {
        this.#decoded.push(text);
        this.#textEnds.push((this.#textEnds.at(-1) ?? 0) + text.length);
      }
      split = this.#scan(text, { isLast: false });
    }
    const isReasoning = !wasContent && this.#splitter?.hasReasoning === true;
    if (isReasoning) this.#numReasoningTokens = this.#numTokens;
    const tokenIds = [tokenId];
    const token =
      isScored && scored ? { tokenIds, logprobs: [this.#detail(scored)], textOffsets: [offset] } : { tokenIds };
    const isUndecided = this.#splitter?.phase === "undecided";
    const phase = isReasoning ? "reasoning" : isUndecided ? "undecided" : "content";
    this.#deltas.push(split, token, phase, this.#isStopped ? { isCut: false } : undefined, out);
    if (this.#calls?.isDone) this.#stop();
  }

  /** A tag that is a special token counts though special tokens are not shown. */
  #hiddenTag(tokenId: number): string {
    const { tokenizer, skipSpecialTokens } = this.#options;
    if (!skipSpecialTokens || !tokenizer.specialIds.has(tokenId)) return "";
    const text = tokenizer.idToToken(tokenId) ?? "";
    const isTag = text === this.#splitter?.expectedTag || this.#calls?.tags.includes(text) === true;
    return isTag ? text : "";
  }

  /** Idempotent. */
  #stop(): void {
    this.#isStopped = true;
    this.#sequence.stop();
  }

  /**
   * Decoded text → text to return.
   * @param isLast no more text follows: what was held back is answer
   */
  #scan(text: string, { isLast }: { readonly isLast: boolean }): SplitText {
    const decoded = this.#match(this.#turnEndMatcher, text, isLast);
    const ends = isLast || this.#isStopped;
    const { reasoning, content } = this.#split(decoded, ends);
    return { reasoning, content: this.#match(this.#matcher, content, ends) };
  }

  #split(text: string, isLast: boolean): SplitText {
    const splitter = this.#splitter;
    if (splitter === undefined) return { reasoning: "", content: text };
    const split = splitter.push(text);
    if (!isLast) return split;
    const rest = splitter.flush();
    return { reasoning: split.reasoning + rest.reasoning, content: split.content + rest.content };
  }

  /** The text up to a stop string, which stops the sequence. */
  #match(matcher: StopStringMatcher | undefined, text: string, isLast: boolean): string {
    if (matcher === undefined) return text;
    const scan: StopScan = this.#numTokens <= this.#options.minTokens ? { text } : matcher.push(text);
    if (scan.matched === undefined) return isLast ? scan.text + matcher.flush() : scan.text;
    this.#stoppedBy = scan.matched;
    this.#stop();
    return scan.text;
  }

  #finish(event: Extract<SequenceEvent, { type: "finished" }>, out: GenerationEvent[]): void {
    if (!this.#isStopped) {
      // The rest may complete a stop string.
      const rest = this.#scan(this.#stream.flush(), { isLast: true });
      if (rest.reasoning + rest.content !== "" || this.#deltas.hasUndecided || this.#calls !== undefined) {
        const phase = rest.reasoning === "" ? "content" : "reasoning";
        this.#deltas.push(rest, { tokenIds: [] }, phase, { isCut: event.reason !== "stop" }, out);
        if (this.#calls?.isDone) this.#stop();
      }
    }
    const reason = this.#isStopped ? "stop" : event.reason;
    const hasCalls = this.#calls !== undefined && this.#calls.numCalls > 0;
    if (reason === "interrupted") {
      this.#isInterrupted = true;
      return;
    }
    const stoppedBy = this.#stoppedBy ?? event.stopTokenId;
    const { firstTokenAtMs, arrivedAtMs } = event.timings;
    if (firstTokenAtMs !== undefined) this.#ttftMs = firstTokenAtMs - arrivedAtMs;
    this.#finishReason = reason === "stop" && hasCalls ? "tool_calls" : reason;
    out.push({
      type: "finished",
      index: this.index,
      reason: this.#finishReason,
      ...(stoppedBy !== undefined && { stoppedBy }),
    });
  }

  #detail(scored: ScoredToken): TokenDetail {
    const { tokenizer } = this.#options;
    return { ...named(scored, tokenizer), top: scored.top.map((other) => named(other, tokenizer)) };
  }
}
