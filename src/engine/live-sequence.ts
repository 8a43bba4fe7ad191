/**
 * One admitted sequence while it lives: what it has read and sampled, how it will end, and the
 * events it sends. The engine decides when it runs; this file knows neither slots nor runners, only
 * what a run's logits mean for it.
 */
import { setMaxListeners } from "node:events";
import { DenseMambaError } from "../errors.ts";
import type { Precision } from "../model/artifact.ts";
import type { RunOutput } from "../runtime/runner.ts";
import { ScoreTable, scoreToken } from "../sampling/logprobs.ts";
import { checkFinite, inPrecision } from "../sampling/rows.ts";
import { graphTemperature, Sampler, type SamplingScratch } from "../sampling/sampler.ts";
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
  /** Sampled tokens without the stop token. */
  readonly #output: number[] = [];
  #numSampled = 0;
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

  constructor(options: LiveSequenceOptions) {
    const { request } = options;
    const { resume, promptIds, sampling } = request;
    this.id = options.id;
    this.group = options.group;
    this.request = request;
    this.events = new EventQueue(this.#abort, () => options.onRoom(this));
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

  /** The token that the next decode step reads. */
  get nextToken(): number {
    return this.numUnread > 0 ? this.#feed[this.#numFed]! : this.#output[this.#output.length - 1]!;
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

  /** Its consumer is slow: it should leave its slot until the consumer has caught up. */
  get mustSuspend(): boolean {
    return this.events.isFull && !this.isLeaving;
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
    return this.#numFed + row + 1 < this.#feed.length || this.#sampler.readsWholeRow;
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
    else this.#sample(output, row - 1, nowMs);
    return row;
  }

  /** `nextToken` has been read; row `row` of `output` says what may follow. */
  afterDecode(output: RunOutput, row: number, nowMs: number): void {
    if (this.numUnread > 0) {
      this.afterChunk(1, output, nowMs, row);
      return;
    }
    this.#position++;
    // Ended while the run was under way: the state has read the token, nothing follows it.
    if (this.#ending === undefined) this.#sample(output, row, nowMs);
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

  #sample(output: RunOutput, row: number, nowMs: number): void {
    const { numLogprobs, stopTokenIds, maxTokens } = this.request;
    const tokenId = this.#failing(() => this.#sampler.sample(output, row));
    if (tokenId === undefined) return;
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
