/**
 * One admitted sequence while it lives: what it has read and sampled, how it will end, and the
 * events it sends. The engine decides when it runs; this file knows neither slots nor runners, only
 * what a run's logits mean for it.
 */
import { setMaxListeners } from "node:events";
import { DenseMambaError } from "../errors.ts";
import type { Precision } from "../model/artifact.ts";
import type { LogitRows } from "../model/logits.ts";
import type { RunOutput } from "../runtime/runner.ts";
import { ScoreTable, scoreToken } from "../sampling/logprobs.ts";
import { checkFinite, copyRow, inPrecision } from "../sampling/rows.ts";
import { graphTemperature, Sampler, type SamplingScratch } from "../sampling/sampler.ts";
import type { NextTokens, TokenMask } from "../sampling/token-matcher.ts";
import { countTokens, historyTokens, idsIn } from "../sessions/stores/snapshot.ts";
import { EventQueue } from "./event-queue.ts";
import type { Schedulable, SequenceGroup } from "./scheduler.ts";
import type { ResumePoint, Sequence, SequenceEvent, SequenceRequest, SequenceTimings } from "./sequence.ts";

export type Ending =
  | { readonly reason: "stop"; readonly stopTokenId?: number }
  | { readonly reason: "length" | "aborted" | "interrupted" }
  | { readonly reason: "failed"; readonly error: unknown };

export interface LiveSequenceOptions {
  readonly id: number;
  readonly group: SequenceGroup;
  readonly request: SequenceRequest;
  /** Of the model's matrices. */
  readonly precision: Precision;
  /** For a request that brings none. */
  readonly seed: number;
  readonly scratch: SamplingScratch;
  readonly arrivedAtMs: number;
  /**
   * Called when the sequence must leave at the next step boundary: `ending` is set, or it is
   * interrupted.
   */
  readonly onEnding: (sequence: LiveSequence) => void;
  /** Called when it need not be suspended any longer. */
  readonly onRoom: (sequence: LiveSequence) => void;
}

export class LiveSequence implements Sequence, Schedulable {
  readonly id: number;
  readonly group: SequenceGroup;
  readonly request: SequenceRequest;
  readonly events: EventQueue<SequenceEvent>;
  /** What the graph divides this sequence's logits by. */
  readonly temperature: number;
  slot = -1;
  scheduledAtMs: number | undefined;
  /** While it is suspended or preempted, and until it has a slot again: what its slot held. */
  suspendedState: Uint8Array | undefined;

  readonly #precision: Precision;
  readonly #sampler: Sampler;
  readonly #onEnding: (sequence: LiveSequence) => void;
  readonly #arrivedAtMs: number;
  /** Tokens to read before the first one is sampled: what `resume` left unread, then the prompt. */
  readonly #feed: readonly number[];
  /** How many of `#feed` have been read. */
  #numFed = 0;
  /** Sampled and forced tokens without the stop token. */
  readonly #output: number[] = [];
  /** How many of them the state has read, and of `#forced` once all of `#output` is read. */
  #numOutputRead = 0;
  /** Tokens that come next for certain and wait for their log-probabilities. */
  #forced: number[] = [];
  /** What the run under way reads of both. */
  #numInRun = 1;
  #numSampled = 0;
  /** Logits to sample from once the grammar has told which tokens are allowed. */
  #late: { readonly row: LogitRows; readonly nowMs: number } | undefined;
  /** How many tokens the state has read, from the sequence's very beginning. */
  #position: number;
  #firstTokenAtMs: number | undefined;
  /** As many as were asked for of each prompt token that has been read. */
  readonly #promptScores: ScoreTable | undefined;
  /** Positions of the checkpoints to come, ascending. */
  readonly #checkpoints: number[];
  /** Events after a prompt event that waits for its captured state. */
  #held: SequenceEvent[] | undefined;
  #ending: Ending | undefined;
  #isInterrupted = false;
  readonly #abort = () => this.end({ reason: "aborted" });
  readonly #onRoom: () => void;

  constructor(options: LiveSequenceOptions) {
    const { request } = options;
    const { resume, promptIds, sampling } = request;
    this.id = options.id;
    this.group = options.group;
    this.request = request;
    this.#onRoom = () => {
      if (!this.mustSuspend) options.onRoom(this);
    };
    this.events = new EventQueue(this.#abort, this.#onRoom);
    this.temperature = graphTemperature(sampling);
    this.#precision = options.precision;
    this.#onEnding = options.onEnding;
    this.#arrivedAtMs = options.arrivedAtMs;
    this.#feed = resume === undefined ? promptIds : unreadOf(resume).concat(promptIds);
    this.#position = resume?.position ?? 0;
    const { positions = [] } = request.checkpoints ?? {};
    const end = this.#position + this.#feed.length;
    this.#checkpoints = positions.filter((position) => position > this.#position && position <= end);
    if (request.numPromptLogprobs !== undefined) {
      this.#promptScores = new ScoreTable(request.numPromptLogprobs);
      // With nothing read before it in this request, the first token has no logits to be scored by.
      if (this.#promptStart === 0) this.#promptScores.push(null);
    }
    this.#sampler = new Sampler({
      params: sampling,
      context: [pastIds(resume), resume?.tokenIds ?? [], promptIds],
      minTokens: request.minTokens,
      stopTokenIds: request.stopTokenIds,
      seed: resume?.sampler?.seed ?? sampling.seed ?? options.seed,
      numDraws: resume?.sampler?.numDraws ?? 0,
      sampledBefore: sampledBefore(resume),
      scratch: options.scratch,
      ...(request.vocabSize !== undefined && { vocabSize: request.vocabSize }),
    });
    // The choices of one request share its signal: many listeners are no leak.
    setMaxListeners(0, request.signal);
    request.signal.addEventListener("abort", this.#abort, { once: true });
  }

  get ending(): Ending | undefined {
    return this.#ending;
  }

  get numUnread(): number {
    return this.#feed.length - this.#numFed;
  }

  /** The most prompt tokens that it may read in one run: as far as the next checkpoint. */
  get maxChunk(): number {
    const checkpoint = this.#checkpoints[0];
    return checkpoint === undefined ? Number.POSITIVE_INFINITY : checkpoint - this.#position;
  }

  get isScored(): boolean {
    return this.request.numPromptLogprobs !== undefined;
  }

  /**
   * One token is left to read, and its logits are needed: a decode step does that together with all
   * others.
   */
  get canDecode(): boolean {
    return this.numUnread === 0 || (this.numUnread === 1 && this.request.maxTokens > 0);
  }

  /** How many tokens the next decode step can read: more than one where a grammar forces them. */
  get numDecodable(): number {
    if (this.numUnread > 0) return 1;
    const last = this.#forced.at(-1);
    // The state never reads a stop token.
    const numStops = last !== undefined && this.request.stopTokenIds.has(last) ? 1 : 0;
    return this.#output.length + this.#forced.length - this.#numOutputRead - numStops;
  }

  /**
   * The next run reads as many, in a decode step.
   * @returns how many
   */
  planDecode(maxTokens: number): number {
    this.#numInRun = Math.min(maxTokens, this.numDecodable);
    return this.#numInRun;
  }

  /** Of the tokens that the decode step reads. */
  decodeToken(index: number): number {
    if (this.numUnread > 0) return this.#feed[this.#numFed]!;
    const place = this.#numOutputRead + index;
    return place < this.#output.length ? this.#output[place]! : this.#forced[place - this.#output.length]!;
  }

  /** Whether each token of a decode step needs logits, to score the next one. */
  get scoresForced(): boolean {
    return this.request.numLogprobs !== undefined;
  }

  /** The state as it is now must be handed over with `takeCheckpoint` before the next run. */
  get needsCheckpoint(): boolean {
    return this.#checkpoints[0] === this.#position && this.#ending?.reason !== "failed";
  }

  /** The state as it is now must be handed over with `deliverPrompt` before the next run. */
  get needsPromptState(): boolean {
    return this.#held !== undefined;
  }

  /** The state must be handed to `finish`, where there is one. */
  get needsFinalState(): boolean {
    return this.request.capture?.end === true && !this.events.isAbandoned && this.#ending?.reason !== "failed";
  }

  /** It leaves its slot at the next step boundary. */
  get isLeaving(): boolean {
    return this.#ending !== undefined || this.#isInterrupted;
  }

  /** Its consumer or its grammar is slow: it should leave its slot until that has caught up. */
  get mustSuspend(): boolean {
    return (this.events.isFull || this.#late !== undefined) && !this.isLeaving;
  }

  stop(): void {
    this.end({ reason: "stop" });
  }

  /**
   * Stops the sequence at the next step boundary, with the result of the current run. Not an ending
   * yet: the run may give its last token.
   */
  interrupt(): void {
    this.#isInterrupted = true;
    this.#onEnding(this);
  }

  /** At a step boundary. */
  endIfInterrupted(): void {
    if (this.#isInterrupted) this.#ending ??= { reason: "interrupted" };
  }

  /**
   * Decides how the sequence ends; the engine ends it at the next step. Later endings are ignored.
   */
  end(ending: Ending): void {
    if (this.#ending !== undefined) return;
    this.#ending = ending;
    this.#onEnding(this);
  }

  /** The runtime lost the state: ends that need it, or need more steps, become this failure. */
  loseState(error: unknown): void {
    if (this.#ending !== undefined && !this.needsFinalState && !this.needsPromptState) return;
    this.#ending = { reason: "failed", error };
  }

  /** The next `numTokens` unread tokens. */
  chunk(numTokens: number): readonly number[] {
    return this.#feed.slice(this.#numFed, this.#numFed + numTokens);
  }

  /**
   * Which rows of the next chunk need logits: those before a scored prompt token, and the prompt's
   * last.
   */
  chunkLogitRows(numTokens: number): number[] {
    const rows: number[] = [];
    for (let row = 0; row < numTokens; row++) if (this.#needsLogits(this.#numFed + row)) rows.push(row);
    return rows;
  }

  /**
   * Whether all logits after the next chunk's token `row` will be read, to score a prompt token or
   * to change them.
   */
  readsWholeRow(row: number): boolean {
    const isChanged = this.#sampler.readsWholeRow || this.request.matcher !== undefined;
    return this.#numFed + row + 1 < this.#feed.length || isChanged;
  }

  /**
   * The next `numTokens` tokens have been read; `output` holds the rows of `chunkLogitRows`, from
   * `firstRow` on.
   * @returns the first row after them
   */
  afterChunk(numTokens: number, output: RunOutput, nowMs: number, firstRow = 0): number {
    const start = this.#numFed;
    this.#numFed += numTokens;
    this.#position += numTokens;
    let row = firstRow;
    for (let index = start; index < this.#numFed; index++) {
      if (!this.#needsLogits(index)) continue;
      if (index + 1 < this.#feed.length) this.#scorePromptToken(index + 1, output, row);
      row++;
    }
    if (this.numUnread > 0 || this.#ending !== undefined) return row;
    if (this.request.capture?.prompt === true) this.#held = [];
    else this.events.push(this.#promptEvent());
    if (this.request.maxTokens === 0) this.end({ reason: "length" });
    else this.#advance(output, row - 1, nowMs);
    return row;
  }

  /**
   * The decode step's tokens have been read; `output` holds their rows, from `firstRow` on: one for
   * each if `scoresForced`, else one for the last.
   * @returns the first row after them
   */
  afterDecode(output: RunOutput, firstRow: number, nowMs: number): number {
    if (this.numUnread > 0) return this.afterChunk(1, output, nowMs, firstRow);
    this.#position += this.#numInRun;
    this.#numOutputRead += this.#numInRun;
    const end = firstRow + (this.scoresForced ? this.#numInRun : 1);
    // Further rows belong to forced tokens of a chunk that has more to read.
    const isRead = this.#numOutputRead === this.#output.length + this.#forced.length;
    for (let row = firstRow; row < end && this.#ending === undefined; row++) {
      if (isRead || this.#forced.length > 0) this.#advance(output, row, nowMs);
    }
    // Ended while the run was under way: the state has read the tokens, nothing follows them.
    this.#output.push(...this.#forced.splice(0, this.#numOutputRead - this.#output.length));
    return end;
  }

  takeCheckpoint(state: Uint8Array): void {
    this.request.checkpoints!.take(this.#checkpoints.shift()!, state);
  }

  deliverPrompt(state: Uint8Array): void {
    const { resume, promptIds } = this.request;
    const tokens = { ...historyOf(resume), tokenIds: (resume?.tokenIds ?? []).concat(promptIds) };
    const held = this.#held ?? [];
    this.#held = undefined;
    this.events.push({ ...this.#promptEvent(), captured: { ...tokens, position: countTokens(tokens), state } });
    for (const event of held) this.events.push(event);
  }

  /** Sends the last event, or the error. Called once; `ending` is set. */
  finish(nowMs: number, state: Uint8Array | undefined): SequenceTimings {
    this.request.signal.removeEventListener("abort", this.#abort);
    this.request.matcher?.close();
    const timings = this.#timings(nowMs);
    const ending = this.#ending!;
    if (ending.reason === "failed") {
      this.events.end({ error: ending.error });
      return timings;
    }
    this.events.push({
      type: "finished",
      ...ending,
      ...(state === undefined ? {} : { captured: this.#resumePoint(state) }),
      timings,
    });
    this.events.end();
    return timings;
  }

  /** What follows the token whose logits row `row` holds. */
  #advance(output: LogitRows, row: number, nowMs: number): void {
    const forced = this.#forced.shift();
    if (forced !== undefined) {
      this.#force(forced, output, row, nowMs);
      return;
    }
    const { matcher } = this.request;
    if (matcher === undefined) {
      this.#sample(output, row, nowMs);
      return;
    }
    if (matcher.next === undefined) matcher.waitBriefly();
    if (matcher.next !== undefined) {
      this.#follow(matcher.next, output, row, nowMs);
      return;
    }
    this.#late = { row: copyRow(output, row), nowMs };
    matcher.onceKnown(() => this.#catchUp());
  }

  /** What the grammar said too late for the step that it was meant for. */
  #catchUp(): void {
    const late = this.#late;
    const next = this.request.matcher?.next;
    this.#late = undefined;
    if (late === undefined || next === undefined || this.#ending !== undefined) return;
    this.#follow(next, late.row, 0, late.nowMs);
    this.#onRoom();
  }

  #follow(next: NextTokens, output: LogitRows, row: number, nowMs: number): void {
    const matcher = this.request.matcher!;
    switch (next.type) {
      case "failed":
        this.end({ reason: "failed", error: next.error });
        return;
      case "end":
        this.end({ reason: "stop" });
        return;
      case "allowed": {
        const tokenId = this.#sample(output, row, nowMs, next.mask);
        if (tokenId === undefined || this.#ending !== undefined) return;
        matcher.accept(tokenId);
        // What follows for certain is read together with it.
        if (matcher.next?.type !== "forced") return;
        this.#expect(matcher.next.tokenIds);
        if (!this.scoresForced) this.#forceAll(output, row, nowMs);
        return;
      }
      case "forced":
        this.#expect(next.tokenIds);
        // With log-probabilities each is sent when the logits before it are there.
        if (this.scoresForced) this.#force(this.#forced.shift()!, output, row, nowMs);
        else this.#forceAll(output, row, nowMs);
    }
  }

  #expect(tokenIds: readonly number[]): void {
    const { maxTokens, stopTokenIds, matcher } = this.request;
    const stop = tokenIds.findIndex((tokenId) => stopTokenIds.has(tokenId)) + 1;
    this.#forced = tokenIds.slice(0, Math.min(stop || maxTokens, maxTokens - this.#numSampled));
    matcher!.acceptForced();
  }

  #forceAll(output: LogitRows, row: number, nowMs: number): void {
    for (const tokenId of this.#forced.splice(0)) this.#force(tokenId, output, row, nowMs);
  }

  #sample(output: LogitRows, row: number, nowMs: number, mask?: TokenMask): number | undefined {
    const tokenId = this.#failing(() => this.#sampler.sample(output, row, mask));
    if (tokenId !== undefined) this.#take(tokenId, output, row, nowMs);
    return tokenId;
  }

  #force(tokenId: number, output: LogitRows, row: number, nowMs: number): void {
    this.#sampler.force(tokenId);
    this.#take(tokenId, output, row, nowMs);
  }

  #take(tokenId: number, output: LogitRows, row: number, nowMs: number): void {
    const { numLogprobs, stopTokenIds, maxTokens } = this.request;
    this.#numSampled++;
    this.#firstTokenAtMs ??= nowMs;
    const event: SequenceEvent =
      numLogprobs === undefined
        ? { type: "token", tokenId }
        : { type: "token", tokenId, scored: scoreToken(output, row, tokenId, numLogprobs) };
    if (this.#held === undefined) this.events.push(event);
    else this.#held.push(event);
    if (stopTokenIds.has(tokenId)) {
      this.end({ reason: "stop", stopTokenId: tokenId });
      return;
    }
    this.#output.push(tokenId);
    if (this.#numSampled === maxTokens) this.end({ reason: "length" });
  }

  #needsLogits(index: number): boolean {
    if (index === this.#feed.length - 1) return this.request.maxTokens > 0;
    return this.request.numPromptLogprobs !== undefined && index + 1 >= this.#promptStart;
  }

  /** Where the prompt begins in `#feed`. */
  get #promptStart(): number {
    return this.#feed.length - this.request.promptIds.length;
  }

  #scorePromptToken(index: number, output: RunOutput, row: number): void {
    const place = index - this.#promptStart;
    const { numPromptLogprobs, ranksPrompt } = this.request;
    this.#failing(() => {
      checkFinite(output, row, ` for token ${place} of the prompt`);
      this.#promptScores!.push(scoreToken(output, row, this.#feed[index]!, numPromptLogprobs!, ranksPrompt));
    });
  }

  /** What `work` throws fails this sequence alone. */
  #failing<Result>(work: () => Result): Result | undefined {
    try {
      return work();
    } catch (cause) {
      const isOurs = cause instanceof DenseMambaError;
      const error = isOurs
        ? inPrecision(cause, this.#precision)
        : new DenseMambaError("runtime_fault", "sampling failed", { cause });
      this.end({ reason: "failed", error });
      return undefined;
    }
  }

  #promptEvent(): SequenceEvent & { readonly type: "prompt" } {
    return this.#promptScores === undefined ? { type: "prompt" } : { type: "prompt", logprobs: this.#promptScores };
  }

  #resumePoint(state: Uint8Array): ResumePoint {
    const { resume, promptIds } = this.request;
    return {
      ...historyOf(resume),
      tokenIds: (resume?.tokenIds ?? []).concat(promptIds, this.#output),
      position: this.#position,
      state,
      sampler: {
        ...this.#sampler.state,
        numSampled: (resume?.sampler?.numSampled ?? 0) + this.#output.length,
      },
    };
  }

  #timings(nowMs: number): SequenceTimings {
    const { resume, promptIds } = this.request;
    return {
      arrivedAtMs: this.#arrivedAtMs,
      scheduledAtMs: this.scheduledAtMs ?? nowMs,
      firstTokenAtMs: this.#firstTokenAtMs,
      finishedAtMs: nowMs,
      numPromptTokens: (resume === undefined ? 0 : countTokens(resume)) + promptIds.length,
      numCachedTokens: resume?.position ?? 0,
      numOutputTokens: this.#numSampled,
    };
  }
}

function historyOf(resume: ResumePoint | undefined): Pick<ResumePoint, "history"> {
  return resume?.history === undefined ? {} : { history: resume.history };
}

function unreadOf({ history, tokenIds, position }: ResumePoint): readonly number[] {
  return tokenIds.slice(position - historyTokens(history));
}

/** Computed only if needed. */
function pastIds(resume: ResumePoint | undefined): Iterable<number> {
  const { seenIds } = resume?.history ?? {};
  return seenIds === undefined ? [] : { [Symbol.iterator]: () => idsIn(seenIds)[Symbol.iterator]() };
}

function sampledBefore(resume: ResumePoint | undefined): readonly number[] {
  if (resume?.sampler === undefined) return [];
  const { tokenIds, sampler } = resume;
  const last = tokenIds.slice(Math.max(0, tokenIds.length - sampler.numSampled));
  return sampler.sampledInPast === undefined ? last : sampler.sampledInPast.concat(last);
}
