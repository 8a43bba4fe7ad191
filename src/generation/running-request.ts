/**
 * A request from its admission to its end, and what is saved at the end: its conversation, and
 * states for prompts like its own. Saves once, whether the consumer read the end, the engine
 * interrupted the request, or nobody read its events any more.
 */
import { DenseMambaError } from "../errors.ts";
import type { PrefixReuse } from "../prefix/prefix-reuse.ts";
import { buildConversation, type ConversationSnapshot } from "../sessions/conversation.ts";
import type { Lease } from "../sessions/lease.ts";
import type { SignedStates } from "../sessions/signed-states.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { Choice } from "./choice.ts";
import type { GenerationEvent, GenerationRequest } from "./events.ts";
import { encodeContinuation } from "./prompts.ts";

export interface RunningRequestOptions {
  readonly tokenizer: Tokenizer;
  readonly modelHash: string;
  /** Unix time in milliseconds. */
  readonly nowMs: () => number;
  readonly request: GenerationRequest;
  /** In the order of prompts, `bestOf` for each. */
  readonly choices: readonly Choice[];
  readonly lease: Lease;
  readonly reuse: PrefixReuse | undefined;
  readonly states: SignedStates;
}

interface SaveResult {
  /** False: a response could not be saved. */
  readonly isSaved: boolean;
  /** For the client. */
  readonly state?: string;
}

export class RunningRequest {
  /** Resolves when everything is saved and released. */
  readonly ended: Promise<void>;
  readonly #options: RunningRequestOptions;
  readonly #saves = new Map<Choice, Promise<SaveResult>>();
  #resolveEnded: () => void = () => {};
  #isDrained = false;

  constructor(options: RunningRequestOptions) {
    this.#options = options;
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  /** `drain` took events: the consumer must not get later ones. */
  get isDrained(): boolean {
    return this.#isDrained;
  }

  /** The server shut down before the consumer got all events. */
  get isCutShort(): boolean {
    return this.#isDrained || this.#options.choices.some(({ isInterrupted }) => isInterrupted);
  }

  /**
   * Saves what a choice leaves behind; call it when the choice has ended. Idempotent.
   * @throws what the store throws if a session cannot be saved: its next turn would not know of
   * this one
   */
  save(choice: Choice, { isAborted }: { readonly isAborted: boolean }): Promise<SaveResult> {
    const saving = this.#saves.get(choice) ?? this.#save(choice, isAborted);
    this.#saves.set(choice, saving);
    return saving;
  }

  async saveInterrupted(): Promise<void> {
    for (const choice of this.#options.choices) if (choice.isInterrupted) await this.save(choice, { isAborted: false });
  }

  /**
   * Reads the events of a consumer that has stopped reading, since saving needs the whole answer.
   * Resolves when all choices have ended and are saved; the consumer gets the failures. Takes
   * nothing from a consumer that has read everything and waits for the store.
   */
  async drain(): Promise<void> {
    await Promise.allSettled(this.#options.choices.map((choice) => this.#drain(choice)));
  }

  end(): void {
    this.#resolveEnded();
  }

  async #drain(choice: Choice): Promise<void> {
    const out: GenerationEvent[] = [];
    for await (const event of choice.events) {
      this.#isDrained = true;
      choice.accept(event, out);
    }
    const last = out.at(-1);
    if (last?.type === "finished") await this.save(choice, { isAborted: last.reason === "aborted" });
    else await this.saveInterrupted();
    await this.#saves.get(choice);
  }

  async #save(choice: Choice, isAborted: boolean): Promise<SaveResult> {
    const { request, choices, lease, reuse } = this.#options;
    // A choice that was aborted while it waited has no state.
    if (cachesEnd(request, choice, reuse) && choice.hasState) reuse?.cacheEnd(choice.endPoint());
    if (choices.length > 1) return { isSaved: true };
    // Before the client gets the end, since its next request may follow at once.
    let isSaved = true;
    // A session stays as it was before an answer that was aborted; a response is what there is of it.
    const isWanted = !isAborted || (request.saveAs?.type !== "session" && choice.hasState);
    if (request.saveAs && isWanted) {
      try {
        await lease.save(await this.#snapshot(choice), request.checkpoint);
      } catch (error) {
        if (request.saveAs.type !== "response" || !isStoreFailure(error)) throw error;
        isSaved = false;
      }
    }
    await lease.release();
    if (request.returnsState !== true || isAborted) return { isSaved };
    return { isSaved, state: await this.#options.states.sign(await this.#snapshot(choice)) };
  }

  async #snapshot(choice: Choice): Promise<ConversationSnapshot> {
    const { tokenizer, modelHash, nowMs, request, lease } = this.#options;
    const end = await choice.endPointAsReturned((text) => encodeContinuation(tokenizer, text));
    const { history, tokenIds, position, state, sampler } = end;
    // Without a seed every request is random, also one that continues this answer.
    const isSeeded = request.sampling.seed !== undefined && sampler !== undefined;
    const { startedFrom } = lease.resumed?.snapshot.conversation ?? {};
    const conversation = {
      ...buildConversation(tokenizer, choice.prompt.conversation, {
        ...(history && { history }),
        tokenIds,
        numPromptTokens: choice.prompt.numTokens,
        sentText: choice.sent.text,
        sentReasoning: choice.sent.reasoning,
        sentCalls: choice.sent.calls,
      }),
      ...(isSeeded && { numSampled: sampler.numSampled }),
      ...(startedFrom && { startedFrom }),
      createdAtMs: lease.createdAtMs,
      lastUsedAtMs: Math.max(nowMs(), lease.lastUsedAtMs),
    };
    return {
      modelHash,
      ...(history && { history }),
      tokenIds,
      position,
      state,
      conversation,
      ...(isSeeded && { sampler: { seed: sampler.seed, numDraws: sampler.numDraws } }),
    };
  }
}

function isStoreFailure(error: unknown): boolean {
  return error instanceof DenseMambaError && error.code === "store_unavailable";
}

/**
 * Whether to cache the state at the end of a choice for prompts that repeat its text. Of several
 * samples any one may be continued, and sessions and stored responses are continued by their names.
 */
export function cachesEnd(
  request: GenerationRequest,
  { prompt }: Pick<Choice, "prompt">,
  reuse: PrefixReuse | undefined,
): boolean {
  const { bestOf, resumeFrom, saveAs } = request;
  const isNamed = (resumeFrom !== undefined && resumeFrom.type !== "persona") || saveAs?.type === "session";
  return reuse?.wantsEnd(prompt) === true && bestOf === 1 && !isNamed;
}
