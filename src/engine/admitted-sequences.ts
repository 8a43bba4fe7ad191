/**
 * The engine's sequences from their admission to their end: bounds how many there are, and ends
 * each exactly once. Knows no runner.
 */
import { strict as assert } from "node:assert";
import { DenseMambaError } from "../errors.ts";
import type { Manifest } from "../model/artifact.ts";
import { SamplingScratch } from "../sampling/sampler.ts";
import { type Ending, LiveSequence } from "./live-sequence.ts";
import type { EngineObserver } from "./observer.ts";
import { CompletionRate } from "./retry-delays.ts";
import type { Scheduler } from "./scheduler.ts";
import type { SequenceRequest } from "./sequence.ts";
import type { SlotMove } from "./slots.ts";
import type { StepLoop } from "./step-loop.ts";
import { validateRequest } from "./validate-request.ts";

export interface AdmissionLimits {
  /** Sequences in slots, decoding or reading their prompt. */
  readonly maxBatch: number;
  /** Sequences waiting for a slot. */
  readonly maxQueue: number;
}

export interface AdmittedSequencesOptions {
  readonly limits: AdmissionLimits;
  readonly scheduler: Scheduler<LiveSequence>;
  readonly loop: Pick<StepLoop, "requestTransitions" | "wake">;
  readonly onEnd: EngineObserver["onSequenceEnd"];
  /** Monotonic, in milliseconds. */
  readonly now: () => number;
  /** Uniform in [0, 1): seeds for requests without one. */
  readonly random: () => number;
}

export interface EngineLoad {
  readonly numRunning: number;
  readonly numWaiting: number;
  /** With slow consumers. They have no slot, and count as waiting. */
  readonly numSuspended: number;
  readonly slotsInUse: number;
  readonly maxBatch: number;
  readonly maxQueue: number;
}

export class AdmittedSequences {
  readonly #options: AdmittedSequencesOptions;
  readonly #scratch = new SamplingScratch();
  readonly #completionRate = new CompletionRate();
  #nextId = 0;
  #numEnded = 0;

  constructor(options: AdmittedSequencesOptions) {
    this.#options = options;
  }

  get load(): EngineLoad {
    const { limits, scheduler } = this.#options;
    const { slots, waiting, suspended } = scheduler;
    const { maxBatch, maxQueue } = limits;
    const [numRunning, numWaiting, numSuspended] = [slots.numUsed, waiting.length, suspended.size];
    return { numRunning, numWaiting, numSuspended, slotsInUse: slots.numUsed, maxBatch, maxQueue };
  }

  /**
   * Admits all requests or none, as one group.
   * @throws `invalid_value`, `invalid_snapshot`, `queue_full`
   */
  admit(requests: readonly SequenceRequest[], manifest: Manifest): LiveSequence[] {
    const { scheduler, loop, now, random } = this.#options;
    for (const request of requests) validateRequest(request, manifest);
    this.#checkRoom(requests.length);
    const group = { lastTurn: 0 };
    const sequences = requests.map(
      (request) =>
        new LiveSequence({
          id: this.#nextId++,
          precision: manifest.precision,
          group,
          request,
          seed: Math.floor(random() * 2 ** 53),
          scratch: this.#scratch,
          arrivedAtMs: now(),
          onEnding: (sequence) => this.#onEnding(sequence),
          onRoom: (sequence) => this.#onRoom(sequence),
        }),
    );
    for (const sequence of sequences) scheduler.enqueue(sequence);
    for (const sequence of sequences) if (sequence.request.signal.aborted) sequence.end({ reason: "aborted" });
    loop.requestTransitions();
    loop.wake();
    return sequences;
  }

  onStep(durationMs: number): void {
    this.#completionRate.onBusy(durationMs);
  }

  /**
   * The only place where a sequence ends and its slot becomes free.
   * @param state what its slot holds, where `needsFinalState`
   * @returns moves to make before the next run
   */
  finish(sequence: LiveSequence, state?: Uint8Array): SlotMove[] {
    const { scheduler, now, onEnd } = this.#options;
    const moves = scheduler.remove(sequence);
    const { reason } = sequence.ending!;
    const timings = sequence.finish(now(), state);
    this.#numEnded++;
    if (sequence.scheduledAtMs !== undefined) this.#completionRate.onEnd();
    onEnd({ reason, timings });
    return moves;
  }

  /** The runtime lost the states in all slots. */
  failRunning(error: DenseMambaError): void {
    for (const sequence of [...this.#options.scheduler.slots.running]) {
      sequence.loseState(error);
      this.finish(sequence);
    }
  }

  failWaiting(error: DenseMambaError): void {
    const ending: Ending = { reason: "failed", error };
    for (const sequence of [...this.#options.scheduler.waiting]) sequence.end(ending);
  }

  /**
   * Stops all sequences at the next step boundary, those without a slot at once. A sequence that
   * has started and captures its end gets its state as it is and ends with reason `interrupted`;
   * the others fail with `shutting_down`.
   */
  interrupt(): void {
    const error = new DenseMambaError("shutting_down", "the server shut down before the sequence ended");
    const { scheduler, loop } = this.#options;
    const { slots, waiting, suspended } = scheduler;
    for (const sequence of [...slots.running, ...suspended, ...waiting]) {
      const hasState = sequence.slot !== -1 || sequence.suspendedState !== undefined;
      if (hasState && sequence.request.capture?.end === true) sequence.interrupt();
      else sequence.end({ reason: "failed", error });
    }
    loop.wake();
  }

  /** @throws if counts, slots and queue contradict each other, which is a bug here. */
  checkIntegrity(): void {
    const { slots, waiting, suspended } = this.#options.scheduler;
    slots.check();
    const numLive = slots.numUsed + waiting.length + suspended.size;
    assert.equal(this.#nextId - this.#numEnded, numLive, "sequences lost or ended twice");
  }

  /** Ends a sequence: between steps if it has a slot, else at once. */
  #onEnding(sequence: LiveSequence): void {
    const { loop } = this.#options;
    if (sequence.slot !== -1) {
      loop.requestTransitions();
      return;
    }
    sequence.endIfInterrupted();
    this.finish(sequence, sequence.needsFinalState ? sequence.suspendedState : undefined);
    // The engine may be waiting for this one to close.
    loop.wake();
  }

  #onRoom(sequence: LiveSequence): void {
    const { scheduler, loop } = this.#options;
    if (!scheduler.suspended.has(sequence)) return;
    scheduler.resume(sequence);
    loop.requestTransitions();
    loop.wake();
  }

  #checkRoom(numRequests: number): void {
    const { numRunning, numWaiting, numSuspended, maxBatch, maxQueue } = this.load;
    if (numRequests > maxBatch + maxQueue) {
      throw new DenseMambaError(
        "invalid_value",
        `the request needs ${numRequests} sequences; ${maxBatch} can run and ${maxQueue} wait at a time`,
      );
    }
    if (numRunning + numWaiting + numSuspended + numRequests <= maxBatch + maxQueue) return;
    throw new DenseMambaError(
      "queue_full",
      `no room for ${numRequests} more: ${numRunning} of ${maxBatch} slots are in use, ${numWaiting + numSuspended} sequences wait (at most ${maxQueue})`,
      { retryAfterMs: this.#completionRate.estimateMs(numRequests) },
    );
  }
}
