/** Collects the deltas of one choice, in little more memory than its text and tokens need. */
import { ScoreTable } from "../sampling/logprobs.ts";
import type { ToolCall } from "../tokenizer/tool-messages.ts";
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

/** A delta without its tokens. */
export type DeltaPart = Pick<DeltaEvent, "part" | "text" | "call" | "withdrawsCall">;

/** What the deltas of one choice say. */
export class CollectedParts {
  readonly #text = new GrowingText();
  readonly #reasoning = new GrowingText();
  readonly #calls: { readonly id: string; readonly name: string; readonly arguments: GrowingText }[] = [];

  push({ part, text, call, withdrawsCall }: DeltaPart): void {
    if (withdrawsCall) this.#calls.pop();
    if (call !== undefined) this.#calls.push({ ...call, arguments: new GrowingText() });
    switch (part) {
      case undefined:
        this.#text.push(text);
        return;
      case "reasoning":
        this.#reasoning.push(text);
        return;
      case "call":
        this.#calls.at(-1)!.arguments.push(text);
    }
  }

  get text(): string {
    return String(this.#text);
  }

  get reasoning(): string {
    return String(this.#reasoning);
  }

  get calls(): readonly ToolCall[] {
    return this.#calls.map((call) => ({ ...call, arguments: String(call.arguments) }));
  }
}

export class CollectedDeltas extends CollectedParts {
  readonly tokenIds: number[] = [];
  /** As of deltas; with `logprobs`. */
  readonly textOffsets: number[] = [];
  readonly #names: TokenNames;
  #scores: ScoreTable | undefined;

  constructor(names: TokenNames) {
    super();
    this.#names = names;
  }

  override push(delta: DeltaEvent): void {
    const { tokenIds, logprobs, textOffsets = [] } = delta;
    super.push(delta);
    for (const id of tokenIds) this.tokenIds.push(id);
    for (const offset of textOffsets) this.textOffsets.push(offset);
    for (const detail of logprobs ?? []) {
      this.#scores ??= new ScoreTable(detail.top.length);
      this.#scores.push(detail);
    }
  }

  /** One per token id; empty where there were none. */
  get logprobs(): DetailList<TokenDetail> {
    return this.#scores === undefined ? [] : (new TokenDetails(this.#scores, this.#names) as DetailList<TokenDetail>);
  }
}
