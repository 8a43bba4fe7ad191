/**
 * One response while it is made: drives its generation into a transcript that any number of readers follow, each at its own
 * pace. Readers may leave and come back; what happens while there is none depends on what was asked for. Knows no transport.
 */
import { DenseMambaError } from "../../errors.ts";
import type { GenerationEvent } from "../../generation/events.ts";
import type { ResumeOptions, TransportObserver } from "../deps.ts";
import { FlushPace, type FlushPaceOptions } from "../http/flush-throttle.ts";
import type { AdmittedGeneration } from "../http/pump.ts";
import type { Reading } from "./subscription.ts";
import type { Transcript } from "./transcript.ts";

/**
 * Without a reader a response goes on as if it had one (it was asked for in the background), or waits for one to come back
 * within the limits, or ends at once.
 */
export type Unattended = "goes on" | "waits" | "ends";

export interface LiveResponseArgs {
  readonly transcript: Transcript;
  readonly admitted: AdmittedGeneration;
  /** Of the generation's signal. */
  readonly abort: AbortController;
  readonly unattended: Unattended;
  readonly options: ResumeOptions;
  readonly pacing: FlushPaceOptions;
  /** Keeps the record of the response, which has ended, before any reader learns of the end. */
  readonly keep: () => Promise<void>;
  readonly observer?: Pick<TransportObserver, "onUnattended"> | undefined;
}

export class LiveResponse {
  readonly transcript: Transcript;
  /** Resolves when the last event is there and the record is kept; never rejects. */
  readonly ended: Promise<void>;
  /** What it failed with. */
  error: unknown;
  readonly #args: LiveResponseArgs;
  readonly #readers = new Set<LiveReading>();
  #numPublished = 0;
  #hasEnded = false;
  readonly #pace: FlushPace;
  /** As the observer knows it. */
  #isUnattended = false;
  /** Generated since the last reader left. */
  #unreadBytes = 0;
  #timer: NodeJS.Timeout | undefined;
  /** Lets the generation, which is held back, go on. */
  #letGo: (() => void) | undefined;
  /** Why it was stopped, if it was. */
  #stopped: "cancelled" | DenseMambaError | undefined;

  constructor(args: LiveResponseArgs) {
    this.#args = args;
    this.#pace = new FlushPace(() => {
      for (const reader of this.#readers) reader.wake();
    }, args.pacing);
    this.transcript = args.transcript;
    if (args.unattended === "goes on") {
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

  /** The reader must leave at some time: what happens without readers happens when the last one leaves. */
  join(): Reading {
    const reading = new LiveReading(this, () => this.#left(reading));
    this.#readers.add(reading);
    this.#unreadBytes = 0;
    this.#observe();
    if (this.#args.unattended === "waits") clearTimeout(this.#timer);
    this.check();
    return reading;
  }

  /** Ends the generation at its next step: as cancelled, or as failed with an error. */
  stop(why: "cancelled" | DenseMambaError): void {
    this.#stopped ??= why;
    this.#args.abort.abort();
    this.check();
  }

  /** Lets a generation that is held back go on if nothing holds it any more. */
  check(): void {
    if (this.#letGo === undefined || this.#mustHold()) return;
    this.#letGo();
    this.#letGo = undefined;
  }

  async #run({ first, rest }: AdmittedGeneration): Promise<void> {
    const { transcript } = this;
    try {
      for (let event: GenerationEvent | undefined = first; event !== undefined; event = await next(rest)) {
        this.#throwIfCutOff(event);
        transcript.push(event);
        if (event.type === "delta" && this.#readers.size === 0) this.#unreadBytes += Buffer.byteLength(event.text);
        if (transcript.hasEnded) await this.#args.keep();
        this.#publish();
        if (this.#mustHold()) await new Promise<void>((resolve) => (this.#letGo = resolve));
      }
    } catch (error) {
      await rest.return?.().catch(() => {});
      await this.#fail(error);
    }
    clearTimeout(this.#timer);
    this.#hasEnded = true;
    this.#observe();
    this.#publish();
    this.#pace.flushNow();
  }

  /** An end that nobody here has asked for is the engine's: it is shutting down. */
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
    // What could not be kept has failed for that very reason, or has failed already.
    await this.#args.keep().catch(() => {});
  }

  #publish(): void {
    this.#numPublished = this.transcript.numEvents;
    this.#pace.request();
  }

  #observe(): void {
    const isUnattended = this.#readers.size === 0 && !this.#hasEnded;
    if (isUnattended === this.#isUnattended) return;
    this.#isUnattended = isUnattended;
    this.#args.observer?.onUnattended?.(isUnattended ? 1 : -1);
  }

  #mustHold(): boolean {
    const { unattended, options, abort } = this.#args;
    if (unattended === "goes on" || abort.signal.aborted || this.transcript.hasEnded) return false;
    if (this.#readers.size === 0) return this.#unreadBytes > options.waitBytes;
    for (const reader of this.#readers) if (!reader.isBehind) return false;
    return true;
  }

  #left(reader: LiveReading): void {
    this.#readers.delete(reader);
    this.#observe();
    this.check();
    if (this.#readers.size > 0 || this.#hasEnded) return;
    const { unattended, options } = this.#args;
    switch (unattended) {
      case "goes on":
        return;
      case "waits":
        this.#timer = setTimeout(() => this.stop("cancelled"), options.waitMs);
        return;
      case "ends":
        this.stop("cancelled");
        return;
    }
  }
}

class LiveReading implements Reading {
  readonly transcript: Transcript;
  readonly #live: LiveResponse;
  readonly #onLeave: () => void;
  #hasLeft = false;
  #isBehind = false;
  #wake: (() => void) | undefined;

  constructor(live: LiveResponse, onLeave: () => void) {
    this.transcript = live.transcript;
    this.#live = live;
    this.#onLeave = onLeave;
  }

  get numEvents(): number {
    return this.#hasLeft ? 0 : this.#live.numPublished;
  }

  get isOver(): boolean {
    return this.#hasLeft || this.#live.hasEnded;
  }

  get isBehind(): boolean {
    return this.#isBehind;
  }

  set isBehind(value: boolean) {
    this.#isBehind = value;
    this.#live.check();
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

  leave(): void {
    if (this.#hasLeft) return;
    this.#hasLeft = true;
    this.wake();
    this.#onLeave();
  }
}

async function next(events: AsyncIterator<GenerationEvent>): Promise<GenerationEvent | undefined> {
  const { done, value } = await events.next();
  return done ? undefined : value;
}
