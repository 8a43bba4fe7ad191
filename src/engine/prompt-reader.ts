/**
 * What one sequence reads before its first token is sampled: the tokens that its state has not read
 * yet, then the prompt. Which of them need logits, how likely each was, and where the state is
 * captured on the way. Knows neither slots nor events.
 */
import type { RunOutput } from "../runtime/runner.ts";
import { ScoreTable, scoreToken } from "../sampling/logprobs.ts";
import { checkFinite } from "../sampling/rows.ts";
import { historyTokens } from "../sessions/stores/snapshot.ts";
import { PooledStates } from "./pooled-states.ts";
import type { ResumePoint, SequenceRequest } from "./sequence.ts";

export class PromptReader {
  readonly #request: SequenceRequest;
  readonly #tokens: readonly number[];
  #numRead = 0;
  /** How many tokens the state had read before. */
  readonly #start: number;
  /** Positions of the checkpoints to come, ascending. */
  readonly #checkpoints: number[];
  /** As many as were asked for of each prompt token that has been read. */
  readonly scores: ScoreTable | undefined;
  /** Of the hidden states behind the tokens that have been read, if they were asked for. */
  readonly pooled: PooledStates | undefined;

  constructor(request: SequenceRequest) {
    const { resume, promptIds, checkpoints, numPromptLogprobs } = request;
    this.#request = request;
    this.#tokens = resume === undefined ? promptIds : unreadOf(resume).concat(promptIds);
    this.#start = resume?.position ?? 0;
    const end = this.#start + this.#tokens.length;
    this.#checkpoints = (checkpoints?.positions ?? []).filter((at) => at > this.#start && at <= end);
    if (request.pooling !== undefined) this.pooled = new PooledStates();
    if (numPromptLogprobs === undefined) return;
    this.scores = new ScoreTable(numPromptLogprobs);
    // With nothing read before it in this request, the first token has no logits to be scored by.
    if (this.#promptStart === 0) this.scores.push(null);
  }

  get numUnread(): number {
    return this.#tokens.length - this.#numRead;
  }

  /** How many tokens the state has read, from the sequence's very beginning. */
  get position(): number {
    return this.#start + this.#numRead;
  }

  /** The most tokens that may be read in one run: as far as the next checkpoint. */
  get maxChunk(): number {
    const checkpoint = this.#checkpoints[0];
    return checkpoint === undefined ? Number.POSITIVE_INFINITY : checkpoint - this.position;
  }

  /** The next `numTokens` unread tokens. */
  chunk(numTokens: number): readonly number[] {
    return this.#tokens.slice(this.#numRead, this.#numRead + numTokens);
  }

  /**
   * Which rows of the next chunk need logits: those before a scored prompt token, those that are
   * pooled, and the prompt's last.
   */
  logitRows(numTokens: number): number[] {
    const rows: number[] = [];
    for (let row = 0; row < numTokens; row++) if (this.#needsLogits(this.#numRead + row)) rows.push(row);
    return rows;
  }

  /** Whether a token follows the next chunk's token `row`. */
  hasNext(row: number): boolean {
    return this.#numRead + row + 1 < this.#tokens.length;
  }

  /**
   * The next `numTokens` tokens have been read; `output` holds the rows of `logitRows`, from
   * `firstRow` on.
   * @throws `runtime_fault` if a row has NaN or +Infinity; the tokens count as read
   */
  advance(numTokens: number, output: RunOutput, firstRow: number): void {
    const start = this.#numRead;
    const rows = this.logitRows(numTokens);
    this.#numRead += numTokens;
    for (const [index, row] of rows.entries()) {
      const next = start + row + 1;
      if (this.pooled !== undefined) this.#pool(this.pooled, start + row, output, firstRow + index);
      else if (next < this.#tokens.length) this.#score(next, output, firstRow + index);
    }
  }

  /** The state as it is now must be handed over with `takeCheckpoint`. */
  get isAtCheckpoint(): boolean {
    return this.#checkpoints[0] === this.position;
  }

  takeCheckpoint(state: Uint8Array): void {
    this.#request.checkpoints!.take(this.#checkpoints.shift()!, state);
  }

  /** Where the prompt begins in `#tokens`. */
  get #promptStart(): number {
    return this.#tokens.length - this.#request.promptIds.length;
  }

  #needsLogits(index: number): boolean {
    const { maxTokens, numPromptLogprobs, pooling } = this.#request;
    if (pooling === "mean") return true;
    if (index === this.#tokens.length - 1) return maxTokens > 0 || pooling === "last";
    return numPromptLogprobs !== undefined && index + 1 >= this.#promptStart;
  }

  #pool(pooled: PooledStates, index: number, output: RunOutput, row: number): void {
    checkFinite(output, row, ` for token ${index} of the prompt`);
    pooled.add(output.hiddenOf(row));
  }

  #score(index: number, output: RunOutput, row: number): void {
    const { numPromptLogprobs, ranksPrompt } = this.#request;
    checkFinite(output, row, ` for token ${index - this.#promptStart} of the prompt`);
    this.scores!.push(scoreToken(output, row, this.#tokens[index]!, numPromptLogprobs!, ranksPrompt));
  }
}

function unreadOf({ history, tokenIds, position }: ResumePoint): readonly number[] {
  return tokenIds.slice(position - historyTokens(history));
}
