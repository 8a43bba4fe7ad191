/**
 * The contract between transports and generation: one request becomes one stream of events, in which every choice ends
 * exactly once. Streaming renders the events, non-streaming folds them. Knows neither HTTP nor OpenAI's field names.
 */
import type { SamplingParams } from "../sampling/params.ts";
import type { ConversationKey } from "../sessions/conversation-store.ts";
import type { ChatMessage } from "../sessions/messages.ts";

export type Prompt =
  | { readonly type: "text"; readonly text: string }
  | { readonly type: "tokens"; readonly tokenIds: readonly number[] }
  | {
      readonly type: "chat";
      readonly messages: readonly ChatMessage[];
      readonly addGenerationPrompt: boolean;
      readonly continueFinalMessage: boolean;
      /** A system message for this request only: it stands before the conversation and is not kept with it. */
      readonly instructions?: string;
      /** Overrides the model's own template. */
      readonly template?: string;
      readonly templateArguments?: Readonly<Record<string, unknown>>;
    };

/** What the client calls the parts of its request, for errors. */
export interface FieldNames {
  readonly prompts: string;
  readonly maxTokens: string;
  readonly numLogprobs: string;
}

export interface GenerationRequest {
  readonly names: FieldNames;
  /** Choice index = prompt index × numChoices + choice. */
  readonly prompts: readonly Prompt[];
  /** n */
  readonly numChoices: number;
  /** best_of ≥ n: sample so many and keep the n with the highest mean log-probability. */
  readonly bestOf: number;
  readonly sampling: SamplingParams;
  /** Undefined: the server's limit. */
  readonly maxTokens: number | undefined;
  readonly minTokens: number;
  readonly stopStrings: readonly string[];
  readonly stopTokenIds: readonly number[];
  readonly ignoreEos: boolean;
  readonly includeStopString: boolean;
  readonly skipSpecialTokens: boolean;
  /** Add BOS and the like when encoding text prompts. */
  readonly addSpecialTokens: boolean;
  readonly echo: boolean;
  readonly numLogprobs?: number;
  readonly numPromptLogprobs?: number;
  /** What its answer may hold, where that is less than `GenerationLimits.maxAnswerTokens`. */
  readonly maxAnswerTokens?: number;
  /** Keep only the last so many prompt tokens. */
  readonly truncatePromptTokens?: number;
  /** Continue from a kept conversation; the prompt is what is new. One prompt, one choice. */
  readonly resumeFrom?: ConversationKey;
  /** Keep the conversation at the end, under this key. One prompt, one choice. */
  readonly keepAs?: ConversationKey;
  /** Whose sessions and responses `resumeFrom` and `keepAs` name; "" where the server has no keys. */
  readonly owner: string;
  /** `accepted` holds all token ids, including those of a long conversation that is continued. Default false. */
  readonly returnTokenIds?: boolean;
  /**
   * Requests share what was read before only with requests of the same owner and the same salt: a prefix hit can be timed.
   * Default: "".
   */
  readonly cacheSalt?: string;
  readonly signal: AbortSignal;
}

export interface TextLogprob {
  readonly tokenId: number;
  /** The token's own text. */
  readonly text: string;
  readonly bytes: Uint8Array;
  readonly logprob: number;
}

export interface TokenDetail extends TextLogprob {
  readonly top: readonly TextLogprob[];
}

/** One detail per token: a list, or one that makes its items when they are looked at. */
export interface DetailList<T extends TokenDetail | null> extends Iterable<T> {
  readonly length: number;
  slice(start: number, end?: number): DetailList<T>;
}

export type PromptEvent = Extract<GenerationEvent, { type: "prompt" }>;
export type DeltaEvent = Extract<GenerationEvent, { type: "delta" }>;

export type GenerationEvent =
  /** First, once: everything was admitted. After this event failures are mid-stream. Ids are joined when they are asked for. */
  | {
      readonly type: "accepted";
      readonly prompts: readonly { readonly tokenIds: readonly number[]; readonly cachedTokens: number }[];
    }
  /** Once per choice, when echo or prompt logprobs were asked for. `text` is the prompt's. */
  | {
      readonly type: "prompt";
      readonly index: number;
      readonly text: string;
      readonly tokenIds: readonly number[];
      /** One per prompt token, null for a token with nothing before it. */
      readonly logprobs?: DetailList<TokenDetail | null>;
      /** With `logprobs`, one per prompt token: characters (code points) of `text` that begin before it. */
      readonly textOffsets?: readonly number[];
    }
  /** `text` may be empty while a character is incomplete or a stop string might be starting. */
  | {
      readonly type: "delta";
      readonly index: number;
      readonly text: string;
      readonly tokenIds: readonly number[];
      /** One per token id. */
      readonly logprobs?: DetailList<TokenDetail>;
      /** With `logprobs`, one per token id: characters of the answer that begin before it. */
      readonly textOffsets?: readonly number[];
    }
  | {
      readonly type: "finished";
      readonly index: number;
      readonly reason: "stop" | "length" | "aborted";
      /** The stop string or stop token id that ended the choice. */
      readonly stoppedBy?: string | number;
      /** False: the response that was to be kept could not be, and is not. A session that cannot be kept is an error. */
      readonly isKept?: false;
    }
  /** Last, once. */
  | { readonly type: "usage"; readonly usage: GenerationUsage };

export interface GenerationUsage {
  readonly promptTokens: number;
  /** Of the prompt's tokens, those that a kept state already covered. */
  readonly cachedTokens: number;
  readonly completionTokens: number;
  /** Bytes of one sequence's state: constant. */
  readonly stateBytes: number;
}
