/**
 * The engine takes requests as tokens and returns tokens. This file opens and closes runners. After
 * a fault the sequences in slots fail, and the waiting ones continue with the next runner. An
 * engine that sleeps has no runner until the next request. Sequences are in
 * `admitted-sequences.ts`, steps in `step-loop.ts`. Knows neither text nor HTTP.
 */
import { strict as assert } from "node:assert";
import { setTimeout as delay } from "node:timers/promises";
import { DenseMambaError } from "../errors.ts";
import type { Manifest } from "../model/artifact.ts";
import type { ModelRunner } from "../runtime/runner.ts";
import { AdaptiveChunkSize } from "./adaptive-chunk-size.ts";
import { type AdmissionLimits, AdmittedSequences, type EngineLoad } from "./admitted-sequences.ts";
import type { LiveSequence } from "./live-sequence.ts";
import type { EngineObserver, EngineStatus } from "./observer.ts";
import { backoffMs } from "./retry-delays.ts";
import { Scheduler } from "./scheduler.ts";
import type { Sequence, SequenceRequest } from "./sequence.ts";
import { StepLoop } from "./step-loop.ts";

export interface EngineLimits extends AdmissionLimits {
  /** The most prompt tokens that a step reads. */
  readonly prefillChunk: number;
  /**
   * How long reading them may hold up running streams, in steps of theirs. Default: as long as it
   * takes.
   */
  readonly maxStall?: number;
}

export interface EngineOptions {
  /** Opens a runner with at least `maxBatch` slots. Called again after a fault and after sleep. */
  readonly openRunner: () => Promise<ModelRunner>;
  readonly limits: EngineLimits;
  readonly observer: EngineObserver;
  /** Monotonic, in milliseconds. */
  readonly now: () => number;
  /** Uniform in [0, 1): seeds for requests without one. */
  readonly random: () => number;
  /** Resolves after `ms`, or as soon as the signal is aborted. */
  readonly sleep?: (ms: number, signal: AbortSignal) => Promise<void>;
}

/**
 * After this many failed attempts in a row to open a runner, waiting sequences fail; the engine
 * keeps trying.
 */
const MAX_FAILED_OPENINGS = 5;
const STARTING_RETRY_MS = 1000;
/** The longest that Node's timers count. */
const MAX_TIMER_MS = 2 ** 31 - 1;

export class Engine {
  readonly #openRunner: () => Promise<ModelRunner>;
  readonly #limits: EngineLimits;
  readonly #observer: EngineObserver;
  readonly #now: () => number;
  readonly #sleep: (ms: number, signal: AbortSignal) => Promise<void>;

  readonly #scheduler: Scheduler<LiveSequence>;
  readonly #loop: StepLoop;
  readonly #sequences: AdmittedSequences;
  #status: EngineStatus = { state: "starting" };
  /** Set by `start`. */
  #manifest: Manifest | undefined;
  /** Runs from `start` until everything is closed. */
  #life: Promise<void> | undefined;
  #isClosing = false;
  /** Aborted at the deadline of closing. */
  readonly #cut = new AbortController();
  /** Faults and failed openings since the last successful run. */
  #numFaults = 0;
  #numFailedOpenings = 0;
  #lastUsedAtMs: number;
  /** Wait for a runner. Called with what it failed to open with, if it did. */
  readonly #wakers = new Set<(error?: unknown) => void>();
  /** Wait until there is no runner. */
  #sleepers: (() => void)[] = [];

  constructor({ openRunner, limits, observer, now, random, sleep = sleepUnlessAborted }: EngineOptions) {
    assert(limits.maxBatch >= 1 && limits.maxQueue >= 0 && limits.prefillChunk >= 1 && (limits.maxStall ?? 1) > 0);
    this.#openRunner = openRunner;
    this.#limits = limits;
    this.#observer = observer;
    this.#now = now;
    this.#sleep = sleep;
    this.#lastUsedAtMs = now();
    this.#scheduler = new Scheduler(limits.maxBatch);
    this.#loop = new StepLoop({
      scheduler: this.#scheduler,
      prefillChunk: limits.prefillChunk,
      pace: new AdaptiveChunkSize({
        maxChunk: limits.prefillChunk,
        maxStall: limits.maxStall ?? Number.POSITIVE_INFINITY,
      }),
      now,
      finish: (sequence, state) => this.#sequences.finish(sequence, state),
      onStep: (step) => this.#onStep(step),
      onIdle: () => {
        this.checkIntegrity();
        return this.#isClosing && this.#scheduler.isEmpty;
      },
    });
    this.#sequences = new AdmittedSequences({
      limits,
      scheduler: this.#scheduler,
      loop: this.#loop,
      now,
      random,
      onEnd: (end) => {
        this.#lastUsedAtMs = now();
        observer.onSequenceEnd(end);
      },
    });
  }

  /**
   * Opens the runner; from then on requests are admitted. @throws what `openRunner` throws;
   * `shutting_down`.
   */
  async start(): Promise<void> {
    assert(this.#life === undefined, "start is called once");
    this.#observer.onStatus(this.#status);
    const runner = await this.#openRunner();
    if (this.#isClosing) {
      await runner.close();
      throw new DenseMambaError("shutting_down", "the engine was closed while it started");
    }
    this.#manifest = runner.manifest;
    this.#setReady(runner);
    this.#life = this.#live(runner);
  }

  /** Starts without a runner: the first request opens it. */
  startAsleep(manifest: Manifest): void {
    assert(this.#life === undefined, "start is called once");
    this.#manifest = manifest;
    this.#life = this.#live(undefined);
  }

  /**
   * Opens a runner if the engine sleeps. Requests may be submitted without it; after it, they fail
   * before they are admitted if none can be opened.
   * @throws what `openRunner` throws; `aborted`, `shutting_down`
   */
  wake(signal: AbortSignal): Promise<void> {
    this.#lastUsedAtMs = this.#now();
    if (this.#isClosing || !this.#isWithoutRunner) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const end = (error?: unknown) => {
        signal.removeEventListener("abort", onAbort);
        this.#wakers.delete(end);
        if (error === undefined) resolve();
        else reject(error);
      };
      const onAbort = () => end(new DenseMambaError("aborted", "aborted while the model was being loaded"));
      this.#wakers.add(end);
      signal.addEventListener("abort", onAbort, { once: true });
      if (signal.aborted) onAbort();
      this.#loop.wake();
    });
  }

  /**
   * Closes the runner once the sequences in slots have ended. Those that wait, or the next request,
   * open another. Resolves when it is closed, or if there is none.
   */
  sleep(): Promise<void> {
    if (this.#status.state !== "ready") return Promise.resolve();
    return new Promise((resolve) => {
      this.#sleepers.push(resolve);
      this.#loop.leave();
    });
  }

  /** On the clock of `now`: when a request last came or ended. */
  get lastUsedAtMs(): number {
    return this.#lastUsedAtMs;
  }

  get status(): EngineStatus {
    return this.#status;
  }

  get load(): EngineLoad {
    return this.#sequences.load;
  }

  /**
   * Admits all requests or none. The scheduler treats them as one group. While the engine recovers
   * from a fault they wait for the next runner.
   * @throws `invalid_value`, `invalid_snapshot`, `queue_full`, `not_ready`, `shutting_down`.
   */
  submit(requests: readonly SequenceRequest[]): Sequence[] {
    const manifest = this.#checkOpen();
    this.#lastUsedAtMs = this.#now();
    return this.#sequences.admit(requests, manifest);
  }

  /** New requests are still admitted until `close`. @see AdmittedSequences.interrupt */
  interrupt(): void {
    this.#sequences.interrupt();
  }

  /**
   * Refuses new requests, lets admitted ones end within the deadline, interrupts the rest, and
   * closes the runner. May be called again with a shorter deadline.
   */
  async close({ deadlineMs }: { readonly deadlineMs: number }): Promise<void> {
    this.#isClosing = true;
    if (this.#life === undefined) {
      this.#setStatus({ state: "closed" });
      return;
    }
    this.#endWaking(new DenseMambaError("shutting_down", "the server is shutting down"));
    if (this.#scheduler.isEmpty) this.#cutShort();
    this.#loop.wake();
    const timer = new AbortController();
    void this.#sleep(Math.min(deadlineMs, MAX_TIMER_MS), timer.signal).then(() => {
      if (!timer.signal.aborted) this.#cutShort();
    });
    try {
      await this.#life;
    } finally {
      timer.abort();
    }
  }

  /** @see AdmittedSequences.checkIntegrity */
  checkIntegrity(): void {
    this.#sequences.checkIntegrity();
  }

  /** One runner after another, until closed. */
  async #live(first: ModelRunner | undefined): Promise<void> {
    let runner = first ?? (await this.#untilAwake());
    try {
      while (runner !== undefined) runner = await this.#use(runner);
    } finally {
      this.#setStatus({ state: "closed" });
      this.#endSleeping();
    }
  }

  /** @returns the next runner; undefined if the engine is closed */
  async #use(runner: ModelRunner): Promise<ModelRunner | undefined> {
    try {
      await this.#loop.run(runner);
    } catch (fault) {
      return this.#recover(runner, fault);
    }
    if (this.#isClosing && this.#scheduler.isEmpty) return void (await runner.close());
    // As a broken one may, it may fail to close.
    await runner.close().catch(() => undefined);
    return this.#untilAwake();
  }

  /** Sleeps until there is work, then opens a runner. Undefined: closed meanwhile. */
  async #untilAwake(): Promise<ModelRunner | undefined> {
    for (;;) {
      this.#setStatus({ state: "sleeping" });
      this.#endSleeping();
      while (this.#scheduler.isIdle && this.#wakers.size === 0) {
        if (this.#isClosing && this.#scheduler.isEmpty) return undefined;
        await this.#loop.untilWoken();
      }
      this.#setStatus({ state: "starting" });
      try {
        const runner = await this.#openUnlessCut();
        if (runner === undefined) return undefined;
        this.#lastUsedAtMs = this.#now();
        this.#setReady(runner);
        this.#endWaking();
        return runner;
      } catch (error) {
        this.#endWaking(error);
        this.#sequences.failWaiting(asFault(error));
      }
    }
  }

  /** Opening may take longer than there is time to close. */
  async #openUnlessCut(): Promise<ModelRunner | undefined> {
    const { signal } = this.#cut;
    const opening = this.#openRunner();
    const runner = await new Promise<ModelRunner | undefined>((resolve, reject) => {
      opening.then(resolve, reject);
      signal.addEventListener("abort", () => resolve(undefined), { once: true });
      if (signal.aborted) resolve(undefined);
    });
    if (runner === undefined) void opening.then((late) => late.close()).catch(() => undefined);
    return runner;
  }

  /** Between two runners: asleep, or being opened after that. */
  get #isWithoutRunner(): boolean {
    const { state } = this.#status;
    return state === "sleeping" || (state === "starting" && this.#manifest !== undefined);
  }

  #endWaking(error?: unknown): void {
    for (const end of [...this.#wakers]) end(error);
  }

  #endSleeping(): void {
    for (const resolve of this.#sleepers) resolve();
    this.#sleepers = [];
  }

  #onStep(step: { durationMs: number; numPromptTokens: number; numDecodeTokens: number }): void {
    this.#numFaults = 0;
    this.#sequences.onStep(step.durationMs);
    const { numRunning, numWaiting } = this.load;
    this.#observer.onStep({ ...step, numRunning, numWaiting });
  }

  /**
   * Fails the running sequences, then opens a new runner, however long it takes. Undefined: closed
   * meanwhile.
   */
  async #recover(broken: ModelRunner, fault: unknown): Promise<ModelRunner | undefined> {
    const error = new DenseMambaError("runtime_fault", `the runtime failed: ${messageOf(fault)}`, { cause: fault });
    this.#setStatus({ state: "recovering", error: error.message });
    this.#sequences.failRunning(error);
    // A broken runner may fail to close too.
    await broken.close().catch(() => undefined);
    this.#endSleeping();
    for (;;) {
      if (this.#isClosing && this.#scheduler.isEmpty) return undefined;
      await this.#sleep(backoffMs(this.#numFaults++), this.#cut.signal);
      if (this.#cut.signal.aborted) return undefined;
      try {
        const runner = await this.#openRunner();
        this.#numFailedOpenings = 0;
        this.#setReady(runner);
        return runner;
      } catch (cause) {
        this.#onFailedOpening(cause);
      }
    }
  }

  #onFailedOpening(cause: unknown): void {
    this.#numFailedOpenings++;
    const message = `the runtime cannot be opened again: ${messageOf(cause)}`;
    this.#setStatus({ state: "recovering", error: message });
    if (this.#numFailedOpenings < MAX_FAILED_OPENINGS) return;
    this.#sequences.failWaiting(new DenseMambaError("runtime_fault", message, { cause }));
  }

  #cutShort(): void {
    this.#cut.abort();
    this.interrupt();
  }

  #checkOpen(): Manifest {
    if (this.#isClosing) throw new DenseMambaError("shutting_down", "the server is shutting down");
    if (this.#manifest === undefined) {
      const details = { retryAfterMs: STARTING_RETRY_MS };
      throw new DenseMambaError("not_ready", "the model is still being loaded", details);
    }
    if (this.#numFailedOpenings >= MAX_FAILED_OPENINGS) {
      const details = { retryAfterMs: backoffMs(this.#numFaults) };
      throw new DenseMambaError("not_ready", "the runtime failed and cannot be opened again yet", details);
    }
    return this.#manifest;
  }

  #setReady(runner: ModelRunner): void {
    assert(runner.numSlots >= this.#limits.maxBatch, "the runner has a slot for every sequence");
    this.#setStatus({ state: "ready", runner: runner.description });
  }

  #setStatus(status: EngineStatus): void {
    this.#status = status;
    this.#observer.onStatus(status);
  }
}

function asFault(error: unknown): DenseMambaError {
  if (error instanceof DenseMambaError) return error;
  const message = `the runtime cannot be opened: ${messageOf(error)}`;
  return new DenseMambaError("runtime_fault", message, { cause: error });
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

async function sleepUnlessAborted(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal }).catch(() => undefined);
}
