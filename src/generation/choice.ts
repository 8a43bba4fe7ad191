/**
 * One choice: turns its sequence's token events into text events. Decodes, watches for stop strings and stops the
 * sequence, counts. Called once per token, so it does little and allocates little.
 */
import { strict as assert } from "node:assert";
import type { ResumePoint, ScoredToken, Sequence, SequenceEvent } from "../engine/sequence.ts";
import type { ScoreTable } from "../sampling/score-table.ts";
import { historyTokens } from "../sessions/stores/snapshot.ts";
import type { TextStream, Tokenizer } from "../tokenizer/tokenizer.ts";
import type { GenerationEvent, TokenDetail } from "./events.ts";
import { GrowingText } from "./gathered-choice.ts";
import type { PreparedPrompt } from "./prompts.ts";
import type { ShownPrompt } from "./shown-prompt.ts";
import { StopStringMatcher, type StopStrings } from "./stop-strings.ts";
import { TextOffsets } from "./text-offsets.ts";
import { named, TokenDetails } from "./token-details.ts";

/** The same for all choices of a request, but for `stopStrings`, which a prompt's template may add to. */
export interface ChoiceOptions {
  readonly tokenizer: Tokenizer;
  readonly stopStrings: StopStrings;
  /** As the engine has them: such a token ends the choice, and its text is not shown. */
  readonly stopTokenIds: ReadonlySet<number>;
  /** Stop strings count only in text that comes after so many tokens. */
  readonly minTokens: number;
  readonly includeStopString: boolean;
  readonly skipSpecialTokens: boolean;
  /** Shown before the answer, if asked for. */
  readonly shownPrompt: ShownPrompt | undefined;
  readonly showLogprobs: boolean;
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
  /** The stop token that ended it, where its text was shown. */
  #toldStopToken: number | undefined;
  #numTokens = 0;
  #sumLogprobs = 0;
  readonly #text = new GrowingText();
  /** The text's length after each token, for answers that a stop string may cut and that may be continued. */
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

  /** Tokens of the answer, a stop token included; those sampled after a stop string do not count. */
  get numTokens(): number {
    return this.#numTokens;
  }

  /** Mean over the answer's tokens, if log-probabilities were asked of the engine. */
  get meanLogprob(): number {
    return this.#numTokens === 0 ? Number.NEGATIVE_INFINITY : this.#sumLogprobs / this.#numTokens;
  }

  /** The engine stopped it in the middle: it has no `finished`, and its state is there to continue from. */
  get isInterrupted(): boolean {
    return this.#isInterrupted;
  }

  /** Whether its end was captured. */
  get hasState(): boolean {
    return this.#captured !== undefined;
  }

  /** All of the answer so far. */
  get text(): string {
    return String(this.#text);
  }

  /** Appends what the event means to `out`. */
  accept(event: SequenceEvent, out: GenerationEvent[]): void {
    switch (event.type) {
      case "prompt":
        this.#promptPoint = event.captured;
        if (this.#options.shownPrompt) out.push(this.#promptEvent(this.#options.shownPrompt, event.logprobs));
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
   * The state at the end and the tokens it stands for. Tokens sampled after a stop string are left out if the state has
   * not read them. Only after `finished`, and only if a capture was asked for.
   */
  captured(): ResumePoint {
    assert(this.#captured !== undefined, "the engine captures what it was asked to");
    if (typeof this.#stoppedBy !== "string") return this.#captured;
    const { history, tokenIds, position, state } = this.#captured;
    const numUseful = Math.max(position, this.prompt.numTokens + this.#numTokens) - historyTokens(history);
    return { ...(history && { history }), tokenIds: tokenIds.slice(0, numUseful), position, state };
  }

  /**
   * The same for a conversation that is continued: of exactly what the client was told. Where a stop string was cut off,
   * its tokens are out again, and the next request reads the answer once more, from the state in front of it.
   * @param encode text → the tokens that say it behind others
   */
  async told(encode: (text: string) => Promise<readonly number[]>): Promise<ResumePoint> {
    const captured = this.captured();
    const { history, tokenIds, position } = captured;
    const tokens = { ...(history && { history }), tokenIds };
    if (this.#toldStopToken !== undefined) {
      return { ...tokens, tokenIds: [...tokenIds, this.#toldStopToken], position, state: captured.state };
    }
    const isOwn = typeof this.#stoppedBy === "string" && !this.prompt.stopStrings.includes(this.#stoppedBy);
    if (!isOwn || this.#promptPoint === undefined) return captured;
    const { numTokens, rest } = this.#whole();
    const numPrompt = this.prompt.numTokens;
    const told = tokenIds.slice(0, numPrompt + numTokens - historyTokens(history));
    if (rest === "" && position <= numPrompt + numTokens)
      return { ...tokens, tokenIds: told, position, state: captured.state };
    const { position: before, state } = this.#promptPoint;
    return { ...tokens, tokenIds: [...told, ...(rest === "" ? [] : await encode(rest))], position: before, state };
  }

  /** The number of tokens whose text was shown in full, and the rest of the shown text: the beginning of a token that was cut. */
  #whole(): { readonly numTokens: number; readonly rest: string } {
    const { text } = this;
    const { length } = text;
    const numUpTo = (end: number) => (end === 0 ? 0 : this.#textEnds.findIndex((at) => at >= end) + 1);
    const numTokens = numUpTo(length);
    // Longer than the text of all tokens: it ends with a character that was never completed.
    if (numTokens === 0 && length > 0) return { numTokens: this.#textEnds.length, rest: "" };
    if (length === 0 || this.#textEnds[numTokens - 1] === length) return { numTokens, rest: "" };
    const end = numTokens < 2 ? 0 : this.#textEnds[numTokens - 2]!;
    return { numTokens: numUpTo(end), rest: text.slice(end) };
  }

  #promptEvent({ text, textOffsets }: ShownPrompt, scores: ScoreTable | undefined): GenerationEvent {
    const { echoIds } = this.prompt;
    // With nothing new on a kept conversation the engine reads, and scores, a token of the past.
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
    const { stopTokenIds, includeStopString, showLogprobs } = this.#options;
    const offset = this.#offsets.next;
    let text = "";
    if (includeStopString || !stopTokenIds.has(tokenId)) {
      const said = this.#stream.push(tokenId);
      if (stopTokenIds.has(tokenId) && said !== "") this.#toldStopToken = tokenId;
      if (this.#promptPoint !== undefined) this.#textEnds.push((this.#textEnds.at(-1) ?? 0) + said.length);
      if (showLogprobs) this.#offsets.add(said, this.#stream);
      text = this.#read(said);
    }
    this.#text.push(text);
    const delta = { type: "delta", index: this.index, text, tokenIds: [tokenId] } as const;
    return showLogprobs && scored ? { ...delta, logprobs: [this.#detail(scored)], textOffsets: [offset] } : delta;
  }

  /** Text from the decoder → text to show. */
  #read(text: string): string {
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
      // What was held back may still complete a stop string; what the matcher holds then cannot.
      let rest = this.#read(this.#stream.flush());
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
