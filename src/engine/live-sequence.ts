/**
 * One admitted sequence while it lives: what it has read and sampled, how it will end, and the
 * events that it sends. The engine decides when it runs. This file does not know runners, only what
 * the logits of a run mean for the sequence.
 */
import { setMaxListeners } from "node:events";
import { DenseMambaError } from "../errors.ts";
import type { Precision } from "../model/artifact.ts";
import type { LogitRows } from "../model/logits.ts";
import type { RunOutput } from "../runtime/runner.ts";
import { scoreToken } from "../sampling/logprobs.ts";
import { copyRow, inPrecision } from "../sampling/rows.ts";
import { graphTemperature } from "../sampling/sampler.ts";
import { countTokens } from "../sessions/stores/snapshot.ts";
import { EventQueue } from "./event-queue.ts";
import { PromptReader } from "./prompt-reader.ts";
import type { Schedulable, SequenceGroup } from "./scheduler.ts";
import type { ResumePoint, Sequence, SequenceEvent, SequenceRequest, SequenceTimings } from "./sequence.ts";
import { TokenChooser, type TokenChooserOptions } from "./token-chooser.ts";

export type Ending =
  | { readonly reason: "stop"; readonly stopTokenId?: number }
  | { readonly reason: "length" | "aborted" | "interrupted" }
  | { readonly reason: "failed"; readonly error: unknown };

export interface LiveSequenceOptions extends TokenChooserOptions {
  readonly id: number;
  readonly group: SequenceGroup;
  readonly request: SequenceRequest;
  /** Of the model's matrices. */
  readonly precision: Precision;
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
  readonly #prompt: PromptReader;
  readonly #chooser: TokenChooser;
  readonly #onEnding: (sequence: LiveSequence) => void;
  readonly #arrivedAtMs: number;
  /** Sampled and forced tokens without the stop token. */
  readonly #output: number[] = [];
  /** How many of them the state has read, and of the forced tokens that wait to be scored. */
  #numOutputRead = 0;
  /** What the run under way reads of both. */
  #numInRun = 1;
  #numSampled = 0;
  /** Logits to choose by once the grammar has told which tokens are allowed. */
  #late: { readonly row: LogitRows; readonly nowMs: number } | undefined;
  #firstTokenAtMs: number | undefined;
  /** Events after a prompt event that waits for its captured state. */
  #held: SequenceEvent[] | undefined;
  #ending: Ending | undefined;
  #isInterrupted = false;
  readonly #abort = () => this.end({ reason: "aborted" });
  readonly #onRoom: () => void;

  constructor(options: LiveSequenceOptions) {
    const { request } = options;
    this.id = options.id;
    this.group = options.group;
    this.request = request;
    this.#onRoom = () => {
      if (!this.mustSuspend) options.onRoom(this);
    };
    this.events = new EventQueue(this.#abort, this.#onRoom);
    this.temperature = graphTemperature(request.sampling);
    this.#precision = options.precision;
    this.#onEnding = options.onEnding;
    this.#arrivedAtMs = options.arrivedAtMs;
    this.#prompt = new PromptReader(request);
    this.#chooser = new TokenChooser(request, options);
    // The choices of one request share its signal: many listeners are no leak.
    setMaxListeners(0, request.signal);
    request.signal.addEventListener("abort", this.#abort, { once: true });
  }

  get ending(): Ending | undefined {
    return this.#ending;
  }

  get numUnread(): number {
    return this.#prompt.numUnread;
  }

  /** The most prompt tokens that it may read in one run: as far as the next checkpoint. */
  get maxChunk(): number {
    return this.#prompt.maxChunk;
  }

  get isScored(): boolean {
    return this.request.numPromptLogprobs !== undefined || this.request.pooling === "mean";
  }

  /** Hidden states are needed wherever logits are. */
  get isPooled(): boolean {
    return this.#prompt.pooled !== undefined;
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
    const { waiting } = this.#chooser;
    const last = waiting.at(-1);
    // The state never reads a stop token.
    const numStops = last !== undefined && this.request.stopTokenIds.has(last) ? 1 : 0;
    return this.#output.length + waiting.length - this.#numOutputRead - numStops;
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
    if (this.numUnread > 0) return this.#prompt.chunk(1)[0]!;
    const place = this.#numOutputRead + index;
    return this.#output[place] ?? this.#chooser.waiting[place - this.#output.length]!;
  }

  /** Whether each token of a decode step needs logits, to score the next one. */
  get scoresForced(): boolean {
    return this.#chooser.scoresForced;
  }

  /** The state as it is now must be handed over with `takeCheckpoint` before the next run. */
  get needsCheckpoint(): boolean {
    return this.#prompt.isAtCheckpoint && this.#ending?.reason !== "failed";
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
    return this.#prompt.chunk(numTokens);
  }

  /**
   * Which rows of the next chunk need logits: those before a scored prompt token, and the prompt's
   * last.
   */
  chunkLogitRows(numTokens: number): number[] {
    return this.#prompt.logitRows(numTokens);
  }

  /**
   * Whether all logits after the next chunk's token `row` will be read, to score a prompt token or
   * to change them.
   */
  readsWholeRow(row: number): boolean {
    return !this.isPooled && (this.#prompt.hasNext(row) || this.#chooser.readsWholeRow);
  }

  /**
   * The next `numTokens` tokens have been read; `output` holds the rows of `chunkLogitRows`, from
   * `firstRow` on.
   * @returns the first row after them
   */
  afterChunk(numTokens: number, output: RunOutput, nowMs: number, firstRow = 0): number {
    const end = firstRow + this.chunkLogitRows(numTokens).length;
    this.#failing(() => this.#prompt.advance(numTokens, output, firstRow));
    if (this.numUnread > 0 || this.#ending !== undefined) return end;
    if (this.request.capture?.prompt === true) this.#held = [];
    else this.events.push(this.#promptEvent());
    if (this.request.maxTokens === 0) this.end({ reason: "length" });
    else this.#advance(output, end - 1, nowMs);
    return end;
  }

  /**
   * The decode step's tokens have been read; `output` holds their rows, from `firstRow` on: one for
   * each if `scoresForced`, else one for the last.
   * @returns the first row after them
   */
  afterDecode(output: RunOutput, firstRow: number, nowMs: number): number {
    if (this.numUnread > 0) return this.afterChunk(1, output, nowMs, firstRow);
    this.#numOutputRead += this.#numInRun;
    const end = firstRow + (this.scoresForced ? this.#numInRun : 1);
    // Further rows belong to forced tokens of a chunk that has more to read.
    const isRead = this.#numOutputRead === this.#output.length + this.#chooser.waiting.length;
    for (let row = firstRow; row < end && this.#ending === undefined; row++) {
      if (isRead || this.#chooser.waiting.length > 0) this.#advance(output, row, nowMs);
    }
    // Ended while the run was under way: the state has read the tokens, nothing follows them.
    const numUnsent = this.#numOutputRead - this.#output.length;
    if (numUnsent > 0) this.#output.push(...this.#chooser.takeWaiting(numUnsent));
    return end;
  }

  takeCheckpoint(state: Uint8Array): void {
    this.#prompt.takeCheckpoint(state);
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
    this.#chooser.close();
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
    const numLeft = this.request.maxTokens - this.#numSampled;
    const chosen = this.#failing(() => this.#chooser.choose(output, row, numLeft));
    switch (chosen?.type) {
      case undefined:
        return;
      case "tokens":
        for (const tokenId of chosen.tokenIds) this.#take(tokenId, output, row, nowMs);
        return;
      case "end":
        this.end({ reason: "stop" });
        return;
      case "failed":
        this.end({ reason: "failed", error: chosen.error });
        return;
      case "unknown":
        this.#late = { row: copyRow(output, row), nowMs };
        this.#chooser.onceKnown(() => this.#catchUp());
    }
  }

  /** What the grammar said too late for the step that it was meant for. */
  #catchUp(): void {
    const late = this.#late;
    this.#late = undefined;
    if (late === undefined || this.#ending !== undefined) return;
    this.#advance(late.row, 0, late.nowMs);
    this.#onRoom();
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
    const { scores, pooled } = this.#prompt;
    return { type: "prompt", ...(scores && { logprobs: scores }), ...(pooled && { pooled: pooled.mean }) };
  }

  #resumePoint(state: Uint8Array): ResumePoint {
    const { resume, promptIds } = this.request;
    return {
      ...historyOf(resume),
      tokenIds: (resume?.tokenIds ?? []).concat(promptIds, this.#output),
      position: this.#prompt.position + this.#numOutputRead,
      state,
      sampler: {
        ...this.#chooser.samplerState,
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
