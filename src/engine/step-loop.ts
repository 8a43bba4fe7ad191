/**
 * A step: schedule → run → postprocess. Sequences enter, change and leave slots only between steps
 * (`#applyTransitions`). Knows one runner and does not handle its faults: an exception ends the
 * loop.
 */
import { strict as assert } from "node:assert";
import type { Manifest } from "../model/artifact.ts";
import type { ModelRunner, RunOutput } from "../runtime/runner.ts";
import type { AdaptiveChunkSize } from "./adaptive-chunk-size.ts";
import { BatchInputs, type ForwardBatch, forwardBatches } from "./forward-batch.ts";
import type { LiveSequence } from "./live-sequence.ts";
import type { PromptLimits, Scheduler } from "./scheduler.ts";
import type { SlotMove } from "./slots.ts";

export interface StepLoopOptions {
  readonly scheduler: Scheduler<LiveSequence>;
  /** The most prompt tokens that a step reads. */
  readonly prefillChunk: number;
  readonly pace: AdaptiveChunkSize;
  /** Monotonic, in milliseconds. */
  readonly now: () => number;
  /** Ends a sequence whose `ending` is set, and gives back the moves that fill its slot. */
  readonly finish: (sequence: LiveSequence, state: Uint8Array | undefined) => SlotMove[];
  readonly onStep: (step: { durationMs: number; numPromptTokens: number; numDecodeTokens: number }) => void;
  /** Called when nothing can run. True: leave the loop; false: wait for `wake`. */
  readonly onIdle: () => boolean;
}

/** Of one sequence whose grammar forces them, in a step. More take several steps. */
const MAX_FORCED_TOKENS = 16;
/** Bounds the logits of prompts with log-probabilities: they are V floats a token. */
const MAX_PROMPT_LOGITS_BYTES = 32 * 2 ** 20;

export class StepLoop {
  readonly #options: StepLoopOptions;
  readonly #inputs: BatchInputs;
  /** A sequence waits for a slot, leaves, or starts to decode: slots change before the next run. */
  #hasTransitions = false;
  /** Since the last run; there may be more to preempt. */
  #hasPreempted = false;
  /** Whether waiting sequences have been admitted since `run` began. */
  #hasAdmitted = false;
  #isLeaving = false;
  /** Ends the idle wait. */
  #wake: (() => void) | undefined;

  constructor(options: StepLoopOptions) {
    this.#options = options;
    this.#inputs = new BatchInputs(options.scheduler.slots.numSlots);
  }

  /** Asks for `#applyTransitions` before the next run. */
  requestTransitions(): void {
    this.#hasTransitions = true;
  }

  /** Ends an idle wait: there may be work. */
  wake(): void {
    this.#wake?.();
    this.#wake = undefined;
  }

  /**
   * Ends `run` once the sequences in slots have ended. Those that wait stay in the queue; but if
   * `run` has only begun, as many as there are slots run first.
   */
  leave(): void {
    this.#isLeaving = true;
    this.wake();
  }

  untilWoken(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  /**
   * Steps while there is work.
   * @throws what the runner throws: the states in its slots are lost.
   */
  async run(runner: ModelRunner): Promise<void> {
    this.#hasTransitions = true;
    this.#hasAdmitted = false;
    try {
      await this.#run(runner);
    } finally {
      this.#isLeaving = false;
    }
  }

  async #run(runner: ModelRunner): Promise<void> {
    const { scheduler, pace, now, onStep, onIdle } = this.#options;
    for (;;) {
      if (scheduler.isIdle || (scheduler.slots.numUsed === 0 && this.#keepsWaiting)) {
        if (onIdle() || this.#isLeaving) return;
        await this.untilWoken();
      }
      const startedAtMs = now();
      while (this.#hasTransitions) await this.#applyTransitions(runner);
      if (scheduler.slots.numUsed === 0) continue;
      const maxDecodeTokens = maxDecodeTokensOf(runner.manifest, scheduler.slots.numDecoding);
      const plan = scheduler.plan(this.#promptLimits(runner.manifest, maxDecodeTokens));
      const { numDecoding } = plan;
      assert(numDecoding > 0 || plan.chunks.length > 0, "whoever is admitted has something to run");
      const numPromptTokens = plan.chunks.reduce((sum, { numTokens }) => sum + numTokens, 0);
      const { running } = scheduler.slots;
      const numLastTokens = numReadByDecoding(running, numDecoding);
      const numDecoded = numDecodeTokens(running, numDecoding, maxDecodeTokens) - numLastTokens;

      // NOTE: nothing is awaited between the end of one run and the start of the next. Events
      // pushed here reach their consumers as microtasks, that is, once the next run is under way:
      // text and sockets cost no time between runs.
      const runningSinceMs = now();
      for (const pass of forwardBatches(plan, runner.manifest.ragged ?? false)) {
        const output = await runner.run(this.#inputs.of(pass, scheduler.slots.running, maxDecodeTokens));
        this.#afterBatch(pass, output, now());
      }
      this.#hasTransitions ||= this.#hasPreempted;
      this.#hasPreempted = false;
      pace.record({ numDecoding, numPromptTokens, durationMs: now() - runningSinceMs });
      onStep({
        durationMs: now() - startedAtMs,
        numPromptTokens: numPromptTokens + numLastTokens,
        numDecodeTokens: numDecoded,
      });
    }
  }

  /** Waiting sequences get no slots any more. */
  get #keepsWaiting(): boolean {
    return this.#isLeaving && this.#hasAdmitted;
  }

  #promptLimits(
    { maxPassSteps = Number.POSITIVE_INFINITY, ragged, sizes }: Manifest,
    maxDecodeTokens: number,
  ): PromptLimits {
    const { scheduler, pace, prefillChunk } = this.#options;
    const { numDecoding, running } = scheduler.slots;
    const inPass = ragged ? maxPassSteps - numDecodeTokens(running, numDecoding, maxDecodeTokens) : maxPassSteps;
    const wanted = numDecoding === 0 ? prefillChunk : pace.size(numDecoding);
    return {
      maxTokens: Math.min(wanted, Math.max(1, inPass)),
      maxPrompts: ragged ? Number.POSITIVE_INFINITY : 1,
      maxScored: Math.max(1, Math.floor(MAX_PROMPT_LOGITS_BYTES / (sizes.vocabSize * 4))),
    };
  }

  #afterBatch({ numDecoding, chunks }: ForwardBatch, output: RunOutput, nowMs: number): void {
    const { running } = this.#options.scheduler.slots;
    let row = 0;
    for (let slot = 0; slot < numDecoding; slot++) {
      const sequence = running[slot]!;
      row = sequence.afterDecode(output, row, nowMs);
      if (sequence.needsPromptState || sequence.needsCheckpoint || sequence.mustSuspend) this.#hasTransitions = true;
    }
    for (const { sequence, numTokens } of chunks) {
      row = sequence.afterChunk(numTokens, output, nowMs, row);
      if (sequence.canDecode || sequence.needsCheckpoint) this.#hasTransitions = true;
    }
  }

  /**
   * Between steps: delivers states, ends and promotes sequences, preempts one, admits waiting ones.
   */
  async #applyTransitions(runner: ModelRunner): Promise<void> {
    const { scheduler, now, finish } = this.#options;
    this.#hasTransitions = false;
    const { slots } = scheduler;
    for (const sequence of [...slots.running]) {
      sequence.endIfInterrupted();
      while (sequence.needsCheckpoint) sequence.takeCheckpoint(await runner.readSlot(sequence.slot));
      if (sequence.needsPromptState) sequence.deliverPrompt(await runner.readSlot(sequence.slot));
      if (sequence.ending !== undefined) {
        const state = sequence.needsFinalState ? await runner.readSlot(sequence.slot) : undefined;
        await makeMoves(runner, finish(sequence, state));
      } else if (sequence.mustSuspend) {
        await this.#vacate(runner, sequence, () => (sequence.mustSuspend ? scheduler.suspend(sequence) : undefined));
      } else if (sequence.canDecode && sequence.slot >= slots.numDecoding) {
        await makeMoves(runner, scheduler.promote(sequence));
      }
    }
    if (this.#keepsWaiting) return;
    this.#hasAdmitted = true;
    // One before each run, since copying many states at once would delay all running sequences.
    const crowding = this.#hasPreempted ? undefined : scheduler.findPreemptible();
    if (crowding !== undefined) {
      await this.#vacate(runner, crowding, () => (crowding.isLeaving ? undefined : scheduler.preempt(crowding)));
      this.#hasPreempted = true;
    }
    for (;;) {
      const sequence = scheduler.admit();
      if (sequence === undefined) return;
      sequence.scheduledAtMs ??= now();
      const state = sequence.suspendedState ?? sequence.request.resume?.state;
      sequence.suspendedState = undefined;
      if (state === undefined) await runner.clearSlot(sequence.slot);
      else await runner.writeSlot(sequence.slot, state);
      if (sequence.canDecode) await makeMoves(runner, scheduler.promote(sequence));
    }
  }

  /**
   * @param leave returns undefined if the sequence should stay: its consumer has caught up, or it
   * is ending
   */
  async #vacate(runner: ModelRunner, sequence: LiveSequence, leave: () => SlotMove[] | undefined): Promise<void> {
    const state = await runner.readSlot(sequence.slot);
    const moves = leave();
    if (moves === undefined) return;
    sequence.suspendedState = state;
    await makeMoves(runner, moves);
  }
}

/** A graph that is not ragged reads one token of each sequence. */
function maxDecodeTokensOf({ ragged, maxPassSteps = Number.POSITIVE_INFINITY }: Manifest, numDecoding: number): number {
  if (!ragged || numDecoding === 0) return 1;
  return Math.max(1, Math.min(MAX_FORCED_TOKENS, Math.floor(maxPassSteps / numDecoding)));
}

function numDecodeTokens(running: readonly LiveSequence[], numDecoding: number, maxTokens: number): number {
  let count = 0;
  for (let slot = 0; slot < numDecoding; slot++) count += Math.min(maxTokens, running[slot]!.numDecodable);
  return count;
}

/** How many of the decoding slots read the last token of a prompt. */
function numReadByDecoding(running: readonly LiveSequence[], numDecoding: number): number {
  let count = 0;
  for (let slot = 0; slot < numDecoding; slot++) if (running[slot]!.numUnread > 0) count++;
  return count;
}

async function makeMoves(runner: ModelRunner, moves: readonly SlotMove[]): Promise<void> {
  for (const move of moves) {
    if (move.type === "copy") await runner.copySlot(move.from, move.to);
    else await runner.swapSlots(move.a, move.b);
  }
}
