/**
 * The deltas of one answer: reasoning, content, and calls of tools. Tokens whose text is held back
 * go with the next delta. Called once per token, so it does little.
 */
import { CollectedParts, type DeltaPart } from "./collected-deltas.ts";
import type { DeltaEvent, GenerationEvent, TokenDetail } from "./events.ts";
import type { SplitText } from "./reasoning.ts";
import type { ToolCallSplitter } from "./tool-calls.ts";

export type DeltaTokens = Pick<DeltaEvent, "tokenIds" | "logprobs" | "textOffsets">;

/** How an answer ended: cut off, or by itself or a stop. */
export interface AnswerEnd {
  readonly isCut: boolean;
}

interface PendingTokens {
  readonly tokenIds: number[];
  readonly logprobs: TokenDetail[];
  readonly textOffsets: number[];
}

export interface AnswerDeltasOptions {
  /** The choice's. */
  readonly index: number;
  readonly mayReason: boolean;
  /** Undefined if calls are text like any other. */
  readonly calls: ToolCallSplitter | undefined;
  readonly newCallId: () => string;
}

export class AnswerDeltas {
  /** All of them so far. */
  readonly sent = new CollectedParts();
  readonly #options: AnswerDeltasOptions;
  /** Tokens before it is known what their text is. */
  #undecided: PendingTokens | undefined;
  /** The length of the content, calls included. */
  #contentLength = 0;

  constructor(options: AnswerDeltasOptions) {
    this.#options = options;
  }

  get contentLength(): number {
    return this.#contentLength;
  }

  get hasUndecided(): boolean {
    return this.#undecided !== undefined;
  }

  /**
   * One token's text may make several deltas: the first has the token.
   * @param phase what the token is a part of
   * @param end set if no more text follows
   */
  push(
    split: SplitText,
    token: DeltaTokens,
    phase: "undecided" | "reasoning" | "content",
    end: AnswerEnd | undefined,
    out: GenerationEvent[],
  ): void {
    const { index, mayReason, calls } = this.#options;
    if (!mayReason && calls === undefined) {
      this.sent.push({ text: split.content });
      out.push(deltaOf(index, split.content, token));
      return;
    }
    const parts = this.#partsOf(split, phase === "reasoning", end);
    const isUndecided = phase === "undecided" || (parts.length === 0 && calls !== undefined);
    if (isUndecided && end === undefined && calls?.isDone !== true) {
      this.#undecided ??= { tokenIds: [], logprobs: [], textOffsets: [] };
      append(this.#undecided, token);
      return;
    }
    const tokens = this.#undecided === undefined ? token : append(this.#undecided, token);
    this.#undecided = undefined;
    if (parts.length === 0 && tokens.tokenIds.length === 0) return;
    const [first = { text: "" }, ...others] = parts;
    out.push({ ...deltaOf(index, first.text, tokens), ...first });
    for (const part of others) out.push({ type: "delta", index, ...part, tokenIds: [] });
  }

  #partsOf({ reasoning, content }: SplitText, isReasoning: boolean, end: AnswerEnd | undefined): DeltaPart[] {
    const { calls } = this.#options;
    const parts: DeltaPart[] = isReasoning ? [{ part: "reasoning", text: reasoning }] : [];
    this.#contentLength += content.length;
    if (calls !== undefined) this.#splitCalls(calls, content, end, parts);
    else if (content !== "") parts.push({ text: content });
    for (const part of parts) this.sent.push(part);
    return parts;
  }

  #splitCalls(calls: ToolCallSplitter, content: string, end: AnswerEnd | undefined, parts: DeltaPart[]): void {
    const pieces = calls.push(content);
    if (end !== undefined) pieces.push(...calls.flush(end));
    let isWithdrawn = false;
    for (const piece of pieces) {
      switch (piece.type) {
        case "content":
          parts.push({ text: piece.text, ...(isWithdrawn && { withdrawsCall: true }) });
          isWithdrawn = false;
          break;
        case "call":
          parts.push({ part: "call", call: { id: this.#options.newCallId(), name: piece.name }, text: "" });
          break;
        case "arguments":
          parts.push({ part: "call", text: piece.text });
          break;
        case "withdrawal":
          isWithdrawn = true;
          break;
      }
    }
  }
}

/** Without spreading an object: there is one for each token. */
function deltaOf(index: number, text: string, { tokenIds, logprobs, textOffsets }: DeltaTokens): DeltaEvent {
  if (logprobs === undefined) return { type: "delta", index, text, tokenIds };
  return { type: "delta", index, text, tokenIds, logprobs, textOffsets: textOffsets! };
}

/** @returns all of them. */
function append(pending: PendingTokens, { tokenIds, logprobs, textOffsets }: DeltaTokens): DeltaTokens {
  pending.tokenIds.push(...tokenIds);
  pending.logprobs.push(...(logprobs ?? []));
  pending.textOffsets.push(...(textOffsets ?? []));
  return pending.logprobs.length === 0 ? { tokenIds: pending.tokenIds } : pending;
}
