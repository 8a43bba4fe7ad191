/**
 * The contract between transports and generation: one request becomes one stream of events, in
 * which every choice ends exactly once. A stream renders the events one by one, a plain answer
 * collects them. Knows neither HTTP nor OpenAI's field names.
 */
import type { Pooling } from "../engine/pooled-states.ts";
import type { Constraint } from "../grammar/constraint.ts";
import type { SamplingParams } from "../sampling/params.ts";
import type { ConversationKey } from "../sessions/conversation-store.ts";
import type { ChatMessage } from "../sessions/messages.ts";
import type { ToolDefinition } from "../tokenizer/tool-messages.ts";

export type Prompt =
  | { readonly type: "text"; readonly text: string }
  | { readonly type: "tokens"; readonly tokenIds: readonly number[] }
  | {
      readonly type: "chat";
      readonly messages: readonly ChatMessage[];
      readonly addGenerationPrompt: boolean;
      readonly continueFinalMessage: boolean;
      /** A system message for this request only: it precedes the conversation and is not stored. */
      readonly instructions?: string;
      /** Overrides the model's own template. */
      readonly template?: string;
      readonly templateArguments?: Readonly<Record<string, unknown>>;
      readonly tools?: Tools;
    };

/** A tool, as a request defines it. */
export interface Tool extends ToolDefinition {
  /** Its arguments match its schema exactly. */
  readonly strict: boolean;
  /** What the schema is called in the request, for error messages. */
  readonly field: string;
}

/** What the model can call instead of answering, or before it does. */
export interface Tools {
  /** Shown to the model. */
  readonly definitions: readonly Tool[];
  /** Those that it may call: none, and the answer is not searched for calls. */
  readonly allowed: readonly Tool[];
  /** The answer is at least one call, and nothing else. */
  readonly isRequired: boolean;
  /** Whether an answer may have several calls. */
  readonly parallel: boolean;
}

/** The client's names for parts of its request, for error messages. */
export interface FieldNames {
  readonly prompts: string;
  readonly maxTokens: string;
  readonly numLogprobs: string;
  /** Where a constraint has parts, the part that paths in it begin at. */
  readonly constraint?: string;
}

export interface GenerationRequest {
  readonly names: FieldNames;
  /** Choice index = prompt index × numChoices + choice. */
  readonly prompts: readonly Prompt[];
  /** n */
  readonly numChoices: number;
  /** best_of ≥ n: sample this many and return the n with the highest mean log-probability. */
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
  /** Not to be written, as far as they are made of the tokens that encode them. Default: none. */
  readonly badWords?: readonly string[];
  /** Add BOS and the like when encoding text prompts. */
  readonly addSpecialTokens: boolean;
  /** What the content of each answer must match. Default: nothing. */
  readonly constraint?: Constraint;
  readonly echo: boolean;
  readonly numLogprobs?: number;
  /** Whether a stop token without text has a log-probability too. Default: true. */
  readonly scoresStopToken?: boolean;
  readonly numPromptLogprobs?: number;
  /** Whether prompt tokens have their ranks. Default: false. */
  readonly ranksPrompt?: boolean;
  /** A tighter limit on the answer's size than `GenerationLimits.maxAnswerTokens`. */
  readonly maxAnswerTokens?: number;
  /** Use only this many of the prompt's tokens. */
  readonly truncatePromptTokens?: number;
  /** Where tokens are cut off then. Default: left, the beginning. */
  readonly truncationSide?: "left" | "right";
  /** Continue a stored conversation; the prompt is what is new. One prompt, one choice. */
  readonly resumeFrom?: ConversationKey;
  /** Store the conversation under this key at the end. One prompt, one choice. */
  readonly saveAs?: ConversationKey;
  /** `finished` has the state at the end, signed. One prompt, one choice. Default: false. */
  readonly returnsState?: boolean;
  /** What the state of a session at the end is called among its checkpoints. */
  readonly checkpoint?: string;
  /** The owner of the sessions and responses named here; "" if the server has no keys. */
  readonly owner: string;
  /** `accepted` has all token ids, even those of a long conversation. Default false. */
  readonly returnTokenIds?: boolean;
  /**
   * Requests share cached prefixes only with requests of the same owner and salt, since a hit can
   * be timed. Default: "".
   */
  readonly cacheSalt?: string;
  readonly signal: AbortSignal;
}

/** What decides which tokens are read. One prompt. */
export type PromptRequest = Pick<
  GenerationRequest,
  | "names"
  | "prompts"
  | "addSpecialTokens"
  | "truncatePromptTokens"
  | "truncationSide"
  | "resumeFrom"
  | "owner"
  | "signal"
>;

/** Any number of prompts, none of which continues a conversation. */
export interface EmbedRequest extends Omit<PromptRequest, "resumeFrom"> {
  readonly pooling: Pooling;
}

export interface Embeddings {
  /** Of all prompts. */
  readonly numTokens: number;
  /** [D] for each prompt. */
  readonly vectors: readonly Float32Array[];
}

/** A prompt, and texts that may follow it. */
export interface ScoreRequest extends PromptRequest {
  readonly continuations: readonly Continuation[];
  readonly cacheSalt?: string;
}

export interface Continuation {
  readonly text: string;
  /** The client's name for it, for error messages. */
  readonly param: string;
}

export interface ScoredContinuations {
  readonly prompt: AcceptedPrompt;
  /** In the order of the continuations. */
  readonly scores: readonly ContinuationScore[];
}

export interface ContinuationScore {
  /** Of the whole continuation: the sum over its tokens. */
  readonly logprob: number;
  readonly numTokens: number;
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
  /** Among all tokens, from 1. Of prompt tokens, if asked for. */
  readonly rank?: number | undefined;
}

/** One detail per token: an array, or a list that makes its items when they are read. */
export interface DetailList<T extends TokenDetail | null> extends Iterable<T> {
  readonly length: number;
  slice(start: number, end?: number): DetailList<T>;
}

export type PromptEvent = Extract<GenerationEvent, { type: "prompt" }>;
export type DeltaEvent = Extract<GenerationEvent, { type: "delta" }>;
export type FinishedEvent = Extract<GenerationEvent, { type: "finished" }>;

export interface AcceptedPrompt {
  /** All of them, also those of the conversation before it. */
  readonly numTokens: number;
  /** Joined when they are first read. */
  readonly tokenIds: readonly number[];
  /** How many of them a stored or cached state had read. */
  readonly cachedTokens: number;
}

export type GenerationEvent =
  /** First, once: all sequences are admitted. Later failures are mid-stream. */
  | {
      readonly type: "accepted";
      readonly prompts: readonly AcceptedPrompt[];
    }
  /** Once per choice, for echo or prompt logprobs. `text` is the prompt's. */
  | {
      readonly type: "prompt";
      readonly index: number;
      readonly text: string;
      readonly tokenIds: readonly number[];
      /** One per prompt token, null for a token with nothing before it. */
      readonly logprobs?: DetailList<TokenDetail | null>;
      /** With `logprobs`, one per prompt token: characters (code points) of `text` before it. */
      readonly textOffsets?: readonly number[];
    }
  /** `text` may be empty while a character is incomplete or a stop string might be starting. */
  | {
      readonly type: "delta";
      readonly index: number;
      /**
       * Of an answer's parts the reasoning comes first. The text of a call is its arguments, in
       * JSON. Default: content.
       */
      readonly part?: "reasoning" | "call";
      readonly text: string;
      /** Of the first delta of a call. The others belong to the call that has begun last. */
      readonly call?: { readonly id: string; readonly name: string };
      /** The call that has begun last was malformed: it is none, and all of it is text. */
      readonly withdrawsCall?: true;
      readonly tokenIds: readonly number[];
      /** One per token id, unless the last is a stop token that is not to be scored. */
      readonly logprobs?: DetailList<TokenDetail>;
      /** With `logprobs`, one for each of them: characters of the answer before the token. */
      readonly textOffsets?: readonly number[];
    }
  | {
      readonly type: "finished";
      readonly index: number;
      /** `tool_calls` is a stop after calls. */
      readonly reason: "stop" | "tool_calls" | "length" | "aborted";
      /** The stop string or stop token id that ended the choice. */
      readonly stoppedBy?: string | number;
      /** False: the store failed to save a response. For a session that is an error. */
      readonly isSaved?: false;
      /** If it was asked for: to be continued as a `given` conversation. */
      readonly state?: string;
    }
  /** Last, once. */
  | { readonly type: "usage"; readonly usage: GenerationUsage };

export interface GenerationUsage {
  readonly promptTokens: number;
  /** Prompt tokens that a stored or cached state had read. */
  readonly cachedTokens: number;
  readonly completionTokens: number;
  /**
   * How many of them came up to the end of the reasoning, tags included. Undefined if answers were
   * not searched for reasoning.
   */
  readonly reasoningTokens?: number;
  /** Of one sequence: constant. */
  readonly stateBytes: number;
  /** For logs: how the choices ended, in their order. */
  readonly finishReasons?: readonly string[];
  /** For logs: from the arrival in the engine to the first token of any choice. */
  readonly ttftMs?: number;
}
