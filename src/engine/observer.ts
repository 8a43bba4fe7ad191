/**
 * How metrics and logs observe the engine. Called synchronously inside a step: be quick, never
 * throw.
 */
import type { SequenceTimings } from "./sequence.ts";

export interface EngineObserver {
  onStep(step: StepReport): void;
  /** Once for every admitted sequence, however it ended. */
  onSequenceEnd(end: {
    readonly reason: "stop" | "length" | "aborted" | "interrupted" | "failed";
    readonly timings: SequenceTimings;
  }): void;
  onStatus(status: EngineStatus): void;
}

export interface StepReport {
  readonly durationMs: number;
  readonly numPromptTokens: number;
  readonly numDecodeTokens: number;
  readonly numRunning: number;
  readonly numWaiting: number;
}

export type EngineStatus =
  | { readonly state: "starting" }
  | { readonly state: "ready"; readonly runner: string }
  /** Without a runner, so without weights in memory: the next request opens one. */
  | { readonly state: "sleeping" }
  /** A fault was seen; a fresh runner is being opened. */
  | { readonly state: "recovering"; readonly error: string }
  | { readonly state: "closed" };
