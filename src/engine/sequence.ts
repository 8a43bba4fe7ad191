/**
 * The engine's input and output: tokens, no text. A request is admitted to the queue or refused at
 * once; once admitted, it ends exactly once.
 */
import type { ScoredToken, ScoreTable } from "../sampling/logprobs.ts";
import type { SamplingParams } from "../sampling/params.ts";
import type { TokenMatcher } from "../sampling/token-matcher.ts";
import type { HistoryRef, SamplerState } from "../sessions/stores/snapshot.ts";
import type { Pooling } from "./pooled-states.ts";

export interface SequenceRequest {
  /**
   * Tokens to feed before the first one is sampled, after `resume` if there is one. At least one.
   */
  readonly promptIds: readonly number[];
  /** Start from this state rather than from zero. */
  readonly resume?: ResumePoint;
  readonly sampling: SamplingParams;
  /**
   * Ids from here on are never sampled: padding of the model's vocabulary, to which no text
   * belongs. Default: none.
   */
  readonly vocabSize?: number;
  /** Tokens to sample. 0: read the prompt only. */
  readonly maxTokens: number;
  /** Until this many tokens are sampled, stop tokens are never chosen. */
  readonly minTokens: number;
  readonly stopTokenIds: ReadonlySet<number>;
  /**
   * Which tokens may be sampled, by a grammar. It allows stop tokens where the text may end. The
   * sequence owns it and closes it at its end; it is its own for each sequence.
   */
  readonly matcher?: TokenMatcher;
  /**
   * Report each sampled token's log-probability and those of the k likeliest (0 ≤ k ≤
   * NUM_CANDIDATES).
   */
  readonly numLogprobs?: number;
  /** The same for the prompt's tokens; the first of all has none. */
  readonly numPromptLogprobs?: number;
  /** And their ranks. */
  readonly ranksPrompt?: boolean;
  /**
   * Report one vector for the tokens that are read: the prompt, and what `resume` left unread.
   * With `maxTokens` 0.
   */
  readonly pooling?: Pooling;
  /**
   * Hand over the state at the end of the prompt (before anything is sampled) and/or at the end of
   * the sequence. With the latter a sequence that is interrupted ends with its state; without,
   * interrupting fails it.
   */
  readonly capture?: { readonly prompt?: boolean; readonly end?: boolean };
  /** States on the way through the prompt. */
  readonly checkpoints?: Checkpoints;
  /** Aborting ends the sequence with reason `aborted` at the next step and frees its slot. */
  readonly signal: AbortSignal;
}

export interface Checkpoints {
  /**
   * Numbers of tokens read since the sequence's beginning, ascending. Others than those reached are
   * skipped.
   */
  readonly positions: readonly number[];
  /** Gets a copy of the state at each. Called between two steps: be quick, never throw. */
  readonly take: (position: number, state: Uint8Array) => void;
}

/** A state and the tokens it has read. */
export interface ResumePoint {
  /** What stands before `tokenIds`, all of it in the state. */
  readonly history?: HistoryRef;
  /** The tokens up to the resume point, for penalties and for the record. */
  readonly tokenIds: readonly number[];
  /**
   * How many tokens, from the very beginning, the state has read. The rest of `tokenIds` is fed
   * before `promptIds`.
   */
  readonly position: number;
  readonly state: Uint8Array;
  /**
   * With it a request continues as the one that stopped here; without, it starts with its own seed
   * and no penalties.
   */
  readonly sampler?: SamplerPoint;
}

export interface SamplerPoint extends SamplerState {
  /** How many of the last tokens were sampled: frequency and presence penalties count them. */
  readonly numSampled: number;
  /** Those of them that stand before `tokenIds`, where a penalty counts them. */
  readonly sampledInPast?: readonly number[];
}

export type SequenceEvent =
  /** The prompt has been read. Comes once, before the first token. Position 0 has no score. */
  | {
      readonly type: "prompt";
      readonly logprobs?: ScoreTable;
      /** [D] of `pooling`. */
      readonly pooled?: Float32Array;
      readonly captured?: ResumePoint;
    }
  /**
   * Every sampled token, a stop token too: it is then the last one, and `finished` with its
   * `stopTokenId` follows.
   */
  | { readonly type: "token"; readonly tokenId: number; readonly scored?: ScoredToken }
  | {
      readonly type: "finished";
      /**
       * `stop`: a stop token was sampled (it is not in `captured`), or `stop()` was called.
       * `interrupted`: the engine stopped it in the middle; a request that resumes from `captured`
       * continues as if it had not.
       */
      readonly reason: "stop" | "length" | "aborted" | "interrupted";
      readonly stopTokenId?: number;
      /**
       * `tokenIds` are the prompt's and the sampled ones; the state may not have read the last one
       * yet.
       */
      readonly captured?: ResumePoint;
      readonly timings: SequenceTimings;
    };

/** Milliseconds on the engine's monotonic clock. */
export interface SequenceTimings {
  readonly arrivedAtMs: number;
  /** When it got a slot; equal to `finishedAtMs` if it never did. */
  readonly scheduledAtMs: number;
  readonly firstTokenAtMs: number | undefined;
  readonly finishedAtMs: number;
  /** All tokens before the first sampled one, those of `resume` included. */
  readonly numPromptTokens: number;
  /** Tokens covered by `resume`, not read again. */
  readonly numCachedTokens: number;
  /** Sampled tokens, a stop token included. */
  readonly numOutputTokens: number;
}

/**
 * An admitted sequence. Iterate `events` to the end; it throws `runtime_fault`, `shutting_down`, …
 * if the sequence failed.
 */
export interface Sequence {
  readonly id: number;
  readonly events: AsyncIterable<SequenceEvent>;
  /**
   * Ends the sequence with reason `stop` at the next step: the text layer has seen a stop string.
   */
  stop(): void;
}
