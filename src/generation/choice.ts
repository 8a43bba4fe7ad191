/**
 * One choice: turns its sequence's token events into text events. Decodes, stops the sequence at a
 * stop string, counts. Called once per token, so it does little and allocates little.
 */
import { strict as assert } from "node:assert";
import type { ResumePoint, Sequence, SequenceEvent } from "../engine/sequence.ts";
import type { ScoredToken, ScoreTable } from "../sampling/logprobs.ts";
import { historyTokens } from "../sessions/stores/snapshot.ts";
import type { TextStream, Tokenizer } from "../tokenizer/tokenizer.ts";
import { GrowingText } from "./collected-deltas.ts";
import type { EchoedPrompt } from "./echo.ts";
import type { GenerationEvent, TokenDetail } from "./events.ts";
import type { PreparedPrompt } from "./prompts.ts";
import { StopStringMatcher, type StopStrings } from "./stop-strings.ts";
import { TextOffsets } from "./text-offsets.ts";
import { named, TokenDetails } from "./token-details.ts";

/** The same for all choices of a request, except that a prompt's template may add stop strings. */
export interface ChoiceOptions {
  readonly tokenizer: Tokenizer;
  readonly stopStrings: StopStrings;
  /** The engine's: such a token ends the choice, and its text is not returned. */
  readonly stopTokenIds: ReadonlySet<number>;
  /** Stop strings count only in text after this many tokens. */
  readonly minTokens: number;
  readonly includeStopString: boolean;
  readonly skipSpecialTokens: boolean;
  /** Sent before the answer, if asked for. */
  readonly echoedPrompt: EchoedPrompt | undefined;
  readonly returnsLogprobs: boolean;
}

export class Choice {
  readonly index: number;
  readonly prompt: PreparedPrompt;
  readonly #sequence: Sequence;
  readonly #options: ChoiceOptions;
  readonly #stream: TextStream;
  readonly #offsets = new TextOffsets();
  readonly #matcher: StopStringMatcher | undefined;
  #stoppedBy: string | number | undefined;
  #isStopped = false;
  /** The stop token that ended it, if its text was returned. */
  #returnedStopToken: number | undefined;
  #numTokens = 0;
  #sumLogprobs = 0;
  readonly #text = new GrowingText();
  /** The length of the text after each token. Filled if a stop string may cut a saved answer. */
  readonly #textEnds: number[] = [];
  /** The state before the answer. */
  #promptPoint: ResumePoint | undefined;
  #captured: ResumePoint | undefined;
  #isInterrupted = false;

  constructor(index: number, prompt: PreparedPrompt, sequence: Sequence, options: ChoiceOptions) {
    this.index = index;
    this.prompt = prompt;
    this.#sequence = sequence;
    this.#options = options;
    const { tokenizer, stopStrings, skipSpecialTokens, includeStopString } = options;
    this.#stream = tokenizer.stream({ skipSpecialTokens, contextIds: prompt.contextIds });
    this.#matcher = stopStrings.isEmpty ? undefined : new StopStringMatcher(stopStrings, { includeStopString });
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

  /** All of the answer so far. */
  get text(): string {
    return String(this.#text);
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
        if (!this.#isStopped) out.push(this.#delta(event.tokenId, event.scored));
        return;
      case "finished":
        this.#captured = event.captured;
        this.#finish(event, out);
    }
  }

  /**
   * The state at the end, and its tokens. Leaves out tokens sampled after a stop string if the
   * state has not read them. Only after `finished`, and only if the end was captured.
   */
  endPoint(): ResumePoint {
    assert(this.#captured !== undefined, "the end was not captured");
    if (typeof this.#stoppedBy !== "string") return this.#captured;
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
    const { text } = this;
    const { length } = text;
    const numUpTo = (end: number) => (end === 0 ? 0 : this.#textEnds.findIndex((at) => at >= end) + 1);
    const numTokens = numUpTo(length);
    // Longer than the text of all tokens: it ends with an incomplete character.
    if (numTokens === 0 && length > 0) return { numTokens: this.#textEnds.length, rest: "" };
    if (length === 0 || this.#textEnds[numTokens - 1] === length) return { numTokens, rest: "" };
    const end = numTokens < 2 ? 0 : this.#textEnds[numTokens - 2]!;
    return { numTokens: numUpTo(end), rest: text.slice(end) };
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

  #delta(tokenId: number, scored: ScoredToken | undefined): GenerationEvent {
    this.#numTokens++;
    if (scored) this.#sumLogprobs += scored.logprob;
    const { stopTokenIds, includeStopString, returnsLogprobs } = this.#options;
    const offset = this.#offsets.next;
    let text = "";
    if (includeStopString || !stopTokenIds.has(tokenId)) {
      const decoded = this.#stream.push(tokenId);
      if (stopTokenIds.has(tokenId) && decoded !== "") this.#returnedStopToken = tokenId;
      if (this.#promptPoint !== undefined) this.#textEnds.push((this.#textEnds.at(-1) ?? 0) + decoded.length);
      if (returnsLogprobs) this.#offsets.add(decoded, this.#stream);
      text = this.#scan(decoded);
    }
    this.#text.push(text);
    const delta = { type: "delta", index: this.index, text, tokenIds: [tokenId] } as const;
    return returnsLogprobs && scored ? { ...delta, logprobs: [this.#detail(scored)], textOffsets: [offset] } : delta;
  }

  /** Decoded text → text to return. */
  #scan(text: string): string {
    if (this.#matcher === undefined || this.#numTokens <= this.#options.minTokens) return text;
    const scan = this.#matcher.push(text);
    if (scan.matched !== undefined) {
      this.#isStopped = true;
      this.#stoppedBy = scan.matched;
      this.#sequence.stop();
    }
    return scan.text;
  }

  #finish(event: Extract<SequenceEvent, { type: "finished" }>, out: GenerationEvent[]): void {
    if (!this.#isStopped) {
      // The rest may complete a stop string. What the matcher still holds afterwards is answer.
      let rest = this.#scan(this.#stream.flush());
      if (!this.#isStopped) rest += this.#matcher?.flush() ?? "";
      this.#text.push(rest);
      if (rest !== "") out.push({ type: "delta", index: this.index, text: rest, tokenIds: [] });
    }
    const reason = this.#isStopped ? "stop" : event.reason;
    if (reason === "interrupted") {
      this.#isInterrupted = true;
      return;
    }
    const stoppedBy = this.#stoppedBy ?? event.stopTokenId;
    out.push({
      type: "finished",
      index: this.index,
      reason,
      ...(stoppedBy !== undefined && { stoppedBy }),
    });
  }

  #detail(scored: ScoredToken): TokenDetail {
    const { tokenizer } = this.#options;
    return { ...named(scored, tokenizer), top: scored.top.map((other) => named(other, tokenizer)) };
  }
}
