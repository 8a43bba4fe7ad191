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

/** The calls of one answer. */
export class CollectedCalls {
  readonly #calls: { readonly id: string; readonly name: string; readonly arguments: GrowingText }[] = [];

  push({ part, text, call, withdrawsCall }: Pick<DeltaEvent, "part" | "text" | "call" | "withdrawsCall">): void {
    if (withdrawsCall) this.#calls.pop();
    if (part !== "call") return;
    if (call !== undefined) this.#calls.push({ ...call, arguments: new GrowingText() });
    this.#calls.at(-1)!.arguments.push(text);
  }

  get all(): readonly ToolCall[] {
    return this.#calls.map((call) => ({ ...call, arguments: String(call.arguments) }));
  }
}

export class CollectedDeltas {
  readonly tokenIds: number[] = [];
  /** As of deltas; with `logprobs`. */
  readonly textOffsets: number[] = [];
  readonly #text = new GrowingText();
  readonly #reasoning = new GrowingText();
  readonly #calls = new CollectedCalls();
  readonly #names: TokenNames;
  #scores: ScoreTable | undefined;

  constructor(names: TokenNames) {
    this.#names = names;
  }

  push(delta: DeltaEvent): void {
    const { part, text, tokenIds, logprobs, textOffsets = [] } = delta;
    this.#calls.push(delta);
    if (part !== "call") (part === "reasoning" ? this.#reasoning : this.#text).push(text);
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

  get calls(): readonly ToolCall[] {
    return this.#calls.all;
  }

  /** One per token id; empty where there were none. */
  get logprobs(): DetailList<TokenDetail> {
    return this.#scores === undefined ? [] : (new TokenDetails(this.#scores, this.#names) as DetailList<TokenDetail>);
  }
}
