/**
 * A request from its admission to its end, and what it leaves behind: the snapshot of its conversation, and states for prompts
 * like its own. Kept once, whether its end was told, or the engine interrupted it, or nobody read its events any more.
 */
import { DenseMambaError } from "../errors.ts";
import type { PrefixReuse } from "../prefix/prefix-reuse.ts";
import type { Lease } from "../sessions/conversations.ts";
import type { Choice } from "./choice.ts";
import type { GenerationEvent, GenerationRequest } from "./events.ts";
import { type KeepingContext, toSnapshot } from "./keeping.ts";

export interface RunningRequestOptions {
  readonly context: KeepingContext;
  readonly request: GenerationRequest;
  /** In the order of prompts, `bestOf` for each. */
  readonly choices: readonly Choice[];
  readonly lease: Lease;
  readonly reuse: PrefixReuse | undefined;
}

export class RunningRequest {
  /** Resolves when everything is kept that will be, and all that was held is free. */
  readonly ended: Promise<void>;
  readonly #options: RunningRequestOptions;
  readonly #settled = new Map<Choice, Promise<{ readonly isKept: boolean }>>();
  #resolveEnded: () => void = () => {};
  #isTaken = false;

  constructor(options: RunningRequestOptions) {
    this.#options = options;
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  /** Some of its events were read in the consumer's place: what comes behind them is not to be told. */
  get isTaken(): boolean {
    return this.#isTaken;
  }

  /** It will not give all of its events to its consumer: the server shut down before. */
  get isCutShort(): boolean {
    return this.#isTaken || this.#options.choices.some(({ isInterrupted }) => isInterrupted);
  }

  /**
   * The choice has ended. Idempotent.
   * @returns whether nothing that was to be kept is missing. A response is worth its answer even so.
   * @throws what the store throws, where a session cannot be kept: its next turn would not know of this one
   */
  settle(choice: Choice, { isAborted }: { readonly isAborted: boolean }): Promise<{ readonly isKept: boolean }> {
    const settling = this.#settled.get(choice) ?? this.#settle(choice, isAborted);
    this.#settled.set(choice, settling);
    return settling;
  }

  /** Settles the choices that were interrupted. */
  async saveInterrupted(): Promise<void> {
    for (const choice of this.#options.choices)
      if (choice.isInterrupted) await this.settle(choice, { isAborted: false });
  }

  /**
   * Reads the events in the consumer's place, who has stopped reading: what is to be kept needs the whole answer. Resolves
   * when the engine has ended all choices and they are kept; failures are the consumer's to hear. Nothing is taken from a
   * consumer that has read everything and waits for the store.
   */
  async readForNobody(): Promise<void> {
    await Promise.allSettled(this.#options.choices.map((choice) => this.#read(choice)));
  }

  end(): void {
    this.#resolveEnded();
  }

  async #read(choice: Choice): Promise<void> {
    const out: GenerationEvent[] = [];
    for await (const event of choice.events) {
      this.#isTaken = true;
      choice.accept(event, out);
    }
    const last = out.at(-1);
    if (last?.type === "finished") await this.settle(choice, { isAborted: last.reason === "aborted" });
    else await this.saveInterrupted();
    await this.#settled.get(choice);
  }

  async #settle(choice: Choice, isAborted: boolean): Promise<{ readonly isKept: boolean }> {
    const { context, request, choices, lease, reuse } = this.#options;
    // Aborted before it had a slot, it has none.
    if (keepsEnd(request, choice, reuse) && choice.hasState) reuse?.cacheEnd(choice.captured());
    if (choices.length > 1) return { isKept: true };
    // Before the client hears of the end: its next request may follow at once.
    let isKept = true;
    if (request.keepAs && !isAborted) {
      try {
        await lease.save(await toSnapshot(context, request, choice, lease));
      } catch (error) {
        if (request.keepAs.type !== "response" || !isStoreFailure(error)) throw error;
        isKept = false;
      }
    }
    await lease.release();
    return { isKept };
  }
}

function isStoreFailure(error: unknown): boolean {
  return error instanceof DenseMambaError && error.code === "store_unavailable";
}

/**
 * Whether the state at the end of a choice is worth keeping for prompts that repeat it: of several samples nobody knows
 * which one will be continued, and a session is continued by its name, as whoever names a response will do again.
 */
export function keepsEnd(
  request: GenerationRequest,
  { prompt }: Pick<Choice, "prompt">,
  reuse: PrefixReuse | undefined,
): boolean {
  const { bestOf, resumeFrom, keepAs } = request;
  const isNamed = resumeFrom !== undefined || keepAs?.type === "session";
  return reuse?.wantsEnd(prompt) === true && bestOf === 1 && !isNamed;
}
