/**
 * One response while it runs: drives its generation into a transcript that any number of
 * subscribers read, each at its own pace. Subscribers may leave and return; the request says what
 * happens without any. Knows no transport.
 */
import { DenseMambaError } from "../../errors.ts";
import type { GenerationEvent } from "../../generation/events.ts";
import type { ResumeOptions, TransportObserver } from "../deps.ts";
import { FlushThrottle, type FlushThrottleOptions } from "../http/flush-throttle.ts";
import { type AdmittedGeneration, next } from "../http/pump.ts";
import type { Subscription } from "./subscription.ts";
import type { Transcript } from "./transcript.ts";

/**
 * Without a subscriber a response continues (in the background), waits within limits for one to
 * return, or is cancelled.
 */
export type Unattended = "continue" | "wait" | "cancel";

export interface LiveResponseArgs {
  readonly transcript: Transcript;
  readonly admitted: AdmittedGeneration;
  /** Of the generation's signal. */
  readonly abort: AbortController;
  readonly unattended: Unattended;
  readonly options: ResumeOptions;
  readonly throttle: FlushThrottleOptions;
  /** Saves the record of the ended response, before any subscriber learns of the end. */
  readonly save: () => Promise<void>;
  readonly observer?: Pick<TransportObserver, "onUnattended"> | undefined;
}

export class LiveResponse {
  readonly transcript: Transcript;
  /** Resolves when the response has ended and its record is saved; never rejects. */
  readonly ended: Promise<void>;
  /** What it failed with. */
  error: unknown;
  readonly #args: LiveResponseArgs;
  readonly #subscribers = new Set<LiveSubscription>();
  #numPublished = 0;
  #hasEnded = false;
  readonly #wakeUps: FlushThrottle;
  /** As the observer knows it. */
  #isUnattended = false;
  /** Generated since the last subscriber left. */
  #unreadBytes = 0;
  #timer: NodeJS.Timeout | undefined;
  /** Resumes the generation, if it is paused. */
  #resume: (() => void) | undefined;
  /** Why it was stopped, if it was. */
  #stopped: "cancelled" | DenseMambaError | undefined;

  constructor(args: LiveResponseArgs) {
    this.#args = args;
    this.#wakeUps = new FlushThrottle(() => {
      for (const subscriber of this.#subscribers) subscriber.wake();
    }, args.throttle);
    this.transcript = args.transcript;
    if (args.unattended === "continue") {
      const { backgroundMs } = args.options;
      const error = new DenseMambaError("aborted", `the response was not finished within ${backgroundMs} ms`);
      this.#timer = setTimeout(() => this.stop(error), backgroundMs);
    }
    this.ended = this.#run(args.admitted);
  }

  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  get numPublished(): number {
    return this.#numPublished;
  }

  /**
   * The caller must close the subscription: the response counts as unattended once all are closed.
   */
  subscribe(): Subscription {
    const subscription = new LiveSubscription(this, () => this.#onClosed(subscription));
    this.#subscribers.add(subscription);
    this.#unreadBytes = 0;
    this.#observe();
    if (this.#args.unattended === "wait") clearTimeout(this.#timer);
    this.resumeIfAllowed();
    return subscription;
  }

  /** Ends the generation at its next step: as cancelled, or as failed with an error. */
  stop(why: "cancelled" | DenseMambaError): void {
    this.#stopped ??= why;
    this.#args.abort.abort();
    this.resumeIfAllowed();
  }

  /** Resumes a paused generation if it need not wait any longer. */
  resumeIfAllowed(): void {
    if (this.#resume === undefined || this.#mustPause()) return;
    this.#resume();
    this.#resume = undefined;
  }

  async #run({ first, rest }: AdmittedGeneration): Promise<void> {
    const { transcript } = this;
    try {
      for (let event: GenerationEvent | undefined = first; event !== undefined; event = await next(rest)) {
        this.#throwIfCutOff(event);
        transcript.push(event);
        if (event.type === "delta" && this.#subscribers.size === 0) this.#unreadBytes += Buffer.byteLength(event.text);
        if (transcript.hasEnded) await this.#args.save();
        this.#publish();
        if (this.#mustPause()) await new Promise<void>((resolve) => (this.#resume = resolve));
      }
    } catch (error) {
      await rest.return?.().catch(() => {});
      await this.#fail(error);
    }
    clearTimeout(this.#timer);
    this.#hasEnded = true;
    this.#observe();
    this.#publish();
    this.#wakeUps.flushNow();
  }

  /** If the generation was aborted without `stop`, the engine is shutting down. */
  #throwIfCutOff(event: GenerationEvent): void {
    if (event.type !== "finished" || event.reason !== "aborted" || this.#stopped === "cancelled") return;
    throw (
      this.#stopped ?? new DenseMambaError("shutting_down", "the server was shut down before the response was finished")
    );
  }

  async #fail(error: unknown): Promise<void> {
    if (this.#stopped === "cancelled") this.transcript.cancel();
    else {
      this.error = this.#stopped ?? error;
      this.transcript.fail(this.error);
    }
    // If it cannot be saved, it has failed for that reason, or before.
    await this.#args.save().catch(() => {});
  }

  #publish(): void {
    this.#numPublished = this.transcript.numEvents;
    this.#wakeUps.request();
  }

  #observe(): void {
    const isUnattended = this.#subscribers.size === 0 && !this.#hasEnded;
    if (isUnattended === this.#isUnattended) return;
    this.#isUnattended = isUnattended;
    this.#args.observer?.onUnattended?.(isUnattended ? 1 : -1);
  }

  #mustPause(): boolean {
    const { unattended, options, abort } = this.#args;
    if (unattended === "continue" || abort.signal.aborted || this.transcript.hasEnded) return false;
    if (this.#subscribers.size === 0) return this.#unreadBytes > options.waitBytes;
    for (const subscriber of this.#subscribers) if (!subscriber.isBehind) return false;
    return true;
  }

  #onClosed(subscription: LiveSubscription): void {
    this.#subscribers.delete(subscription);
    this.#observe();
    this.resumeIfAllowed();
    if (this.#subscribers.size > 0 || this.#hasEnded) return;
    const { unattended, options } = this.#args;
    if (unattended === "wait") this.#timer = setTimeout(() => this.stop("cancelled"), options.waitMs);
    else if (unattended === "cancel") this.stop("cancelled");
  }
}

class LiveSubscription implements Subscription {
  readonly transcript: Transcript;
  readonly #live: LiveResponse;
  readonly #onClosed: () => void;
  #isClosed = false;
  #isBehind = false;
  #wake: (() => void) | undefined;

  constructor(live: LiveResponse, onClosed: () => void) {
    this.transcript = live.transcript;
    this.#live = live;
    this.#onClosed = onClosed;
  }

  get numEvents(): number {
    return this.#isClosed ? 0 : this.#live.numPublished;
  }

  get isOver(): boolean {
    return this.#isClosed || this.#live.hasEnded;
  }

  get isBehind(): boolean {
    return this.#isBehind;
  }

  set isBehind(value: boolean) {
    this.#isBehind = value;
    this.#live.resumeIfAllowed();
  }

  changed(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  wake(): void {
    this.#wake?.();
    this.#wake = undefined;
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.wake();
    this.#onClosed();
  }
}
