/** Collects the deltas of one choice, in little more memory than its text and tokens need. */
import { ScoreTable } from "../sampling/logprobs.ts";
import type { DeltaEvent, DetailList, TokenDetail } from "./events.ts";
import { TokenDetails, type TokenNames } from "./token-details.ts";

const MAX_PARTS = 1024;

/** A text that grows a token at a time. A plain string would allocate a node for each addition. */
export class GrowingText {
  readonly #parts: string[] = [];

  push(part: string): void {
    if (part === "") return;
    this.#parts.push(part);
    if (this.#parts.length === MAX_PARTS) this.#parts.splice(0, MAX_PARTS, this.#parts.join(""));
  }

  toString(): string {
    return this.#parts.join("");
  }
}

export class CollectedDeltas {
  readonly tokenIds: number[] = [];
  /** As of deltas; with `logprobs`. */
  readonly textOffsets: number[] = [];
  readonly #text = new GrowingText();
  readonly #reasoning = new GrowingText();
  readonly #names: TokenNames;
  #scores: ScoreTable | undefined;

  constructor(names: TokenNames) {
    this.#names = names;
  }

  push({ part, text, tokenIds, logprobs, textOffsets = [] }: DeltaEvent): void {
    (part === "reasoning" ? this.#reasoning : this.#text).push(text);
    for (const id of tokenIds) this.tokenIds.push(id);
    for (const offset of textOffsets) this.textOffsets.push(offset);
    for (const detail of logprobs ?? []) {
      this.#scores ??= new ScoreTable(detail.top.length);
      this.#scores.push(detail);
    }
  }

  get text(): string {
    return String(this.#text);
  }

  get reasoning(): string {
    return String(this.#reasoning);
  }

  /** One per token id; empty where there were none. */
  get logprobs(): DetailList<TokenDetail> {
    return this.#scores === undefined ? [] : (new TokenDetails(this.#scores, this.#names) as DetailList<TokenDetail>);
  }
}
