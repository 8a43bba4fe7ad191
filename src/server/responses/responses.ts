/**
 * All responses of the server: those that run, and the records of those that have ended. A response
 * belongs to the key that made it; for any other key it does not exist. HTTP and the WebSocket are
 * two transports for this service.
 */
import { DenseMambaError } from "../../errors.ts";
import type { ConversationKey } from "../../sessions/conversation-store.ts";
import type { ChatMessage } from "../../sessions/messages.ts";
import type { ServerDeps } from "../deps.ts";
import { type AdmittedGeneration, admit } from "../http/pump.ts";
import { toHttpError } from "../openai/errors.ts";
import { invalid, show } from "../openai/validate.ts";
import { ConversationItems, type ConversationPast, type ConversationTurn } from "./conversation-items.ts";
import { LiveResponse, type Unattended } from "./live-response.ts";
import { ResponseRecords, type StoredResponse } from "./records.ts";
import { type ResponseTask, withIds } from "./request.ts";
import { type InputItem, type ResponseHead, type ResponseObject, toInputItemObject } from "./response.ts";
import { type Subscription, storedSubscription } from "./subscription.ts";
import { Transcript } from "./transcript.ts";
import type { UnstoredResponses } from "./unstored.ts";

export interface CreateArgs {
  readonly owner: string;
  readonly task: ResponseTask;
  /** Aborted if the client goes away before the response is admitted. */
  readonly signal: AbortSignal;
  /**
   * Of a connection that can continue from responses with `store: false`. Without it their states
   * are dropped.
   */
  readonly unstored?: UnstoredResponses;
  readonly requestId: string;
  /** Whether the client reads the events: one that only waits for the end cannot resume. */
  readonly isStreamed: boolean;
}

export interface CreatedResponse {
  readonly live: LiveResponse;
  /** To be closed by the caller. */
  readonly subscription: Subscription;
}

interface Running {
  readonly live: LiveResponse;
  readonly input: readonly InputItem[];
}

export class Responses {
  readonly conversations: ConversationItems;
  readonly #deps: ServerDeps;
  readonly #records: ResponseRecords;
  /** All running responses, including those that are not stored. */
  readonly #running = new Map<string, Running>();

  /** @param conversations of all models; by default its own */
  constructor(deps: ServerDeps, conversations = new ConversationItems(deps)) {
    this.conversations = conversations;
    this.#deps = deps;
    this.#records = new ResponseRecords(deps);
  }

  get numRunning(): number {
    return this.#running.size;
  }

  /**
   * @throws whatever the generation was refused with; once it is admitted, failures are the
   * response's
   */
  async create(args: CreateArgs): Promise<CreatedResponse> {
    const { owner, task, unstored, requestId } = args;
    const { settings } = task;
    const { resume, streamGapMs, storeRequired } = this.#deps.options;
    if (settings.store && storeRequired) await this.#deps.checkStates();
    const head = this.#newHead();
    const key = keyOf(owner, head.id);
    const abort = new AbortController();
    const turn = await this.#beginTurn(owner, task);
    const admitted = await this.#admit(args, head.id, { abort, turn }).catch(async (error: unknown) => {
      await turn?.release();
      throw error;
    });

    const transcript = new Transcript(head, settings, () => this.#nowS());
    const response: StoredResponse = { transcript, input: withIds(task.input, head.id) };
    let announced: Promise<void> | undefined;
    const live = new LiveResponse({
      transcript,
      admitted,
      abort,
      unattended: unattended(args),
      options: resume,
      throttle: { engine: this.#deps.engine, gapMs: streamGapMs },
      observer: this.#deps.observer,
      save: async () => {
        await announced?.catch(() => {});
        try {
          await this.#save(owner, response);
          await this.#endTurn(turn, response);
        } finally {
          await turn?.release();
        }
      },
    });
    const subscription = live.subscribe();
    this.#running.set(key, { live, input: response.input });
    if (!settings.store) unstored?.add(head.id);
    void live.ended.then(() => {
      this.#running.delete(key);
      if (live.error === undefined || !toHttpError(live.error).isFault) return;
      this.#deps.log.error({ err: live.error, requestId, responseId: head.id }, "response failed");
    });
    if (settings.background) {
      // Before its id is sent, so that other servers know it, and this one after a restart.
      announced = this.#records.save(owner, response, this.#deps.nowMs() + resume.backgroundMs);
      await announced.catch((error: unknown) => {
        live.stop("cancelled");
        throw error;
      });
    }
    return { live, subscription };
  }

  /** Whether it can be found by its id. */
  async has(owner: string, id: string): Promise<boolean> {
    if (this.#stored(owner, id) !== undefined) return true;
    return this.#deps.generator.conversations.readRecord(owner, id).then(
      () => true,
      (error: unknown) => {
        if (error instanceof DenseMambaError && error.code === "response_not_found") return false;
        throw error;
      },
    );
  }

  /** @throws `response_not_found` */
  async retrieve(owner: string, id: string): Promise<ResponseObject> {
    return (await this.#transcript(owner, id)).response();
  }

  /** In their order. @throws `response_not_found` */
  async inputItems(owner: string, id: string): Promise<readonly InputItem[]> {
    return this.#stored(owner, id)?.input ?? (await this.#records.read(owner, id)).input;
  }

  /**
   * Its input and output as clients send them back: for `item_reference`.
   * @throws `response_not_found`
   */
  async items(owner: string, id: string): Promise<readonly object[]> {
    const running = this.#stored(owner, id);
    const { transcript, input } = running
      ? { transcript: running.live.transcript, input: running.input }
      : await this.#records.read(owner, id);
    return [...input.map(toInputItemObject), ...transcript.response().output];
  }

  /**
   * What a response would read before it answers.
   * @throws as `create` for its input
   */
  async countInput(owner: string, task: ResponseTask, signal: AbortSignal): Promise<number> {
    const { request, settings } = task;
    const { conversationId: id } = settings;
    const past = id === undefined ? undefined : await this.conversations.past(owner, id, this.#deps.model.name);
    return this.#continuing(past, previous(task, undefined), async ({ messages, resumeFrom }) => {
      const asked = { ...withMessages(request, messages), ...(resumeFrom && { resumeFrom }), owner, signal };
      return (await this.#deps.generator.encodePrompt(asked)).numTokens;
    });
  }

  /**
   * Subscribes to the events of a response, past and future.
   * @param startingAfter the number of the last event that the client has
   * @throws `response_not_found`, `response_busy` if another server runs it, `invalid_value` for a
   * number beyond its events
   */
  async subscribe(
    owner: string,
    id: string,
    startingAfter: number | undefined,
  ): Promise<{ subscription: Subscription; from: number }> {
    const live = this.#stored(owner, id)?.live;
    const transcript = live?.transcript ?? (await this.#transcript(owner, id));
    if (live === undefined && !transcript.hasEnded) throw runsElsewhere(id);
    const subscription = live?.subscribe() ?? storedSubscription(transcript);
    const from = startingAfter === undefined ? 0 : startingAfter + 1;
    if (from <= subscription.numEvents) return { subscription, from };
    const last = subscription.numEvents - 1;
    subscription.close();
    throw invalid("starting_after", `must be at most ${last}, the response's last event so far; got ${startingAfter}`);
  }

  /**
   * @returns the ended response.
   * @throws `response_not_found`, `response_busy`, `invalid_value` if it had ended before
   */
  async cancel(owner: string, id: string): Promise<ResponseObject> {
    const live = this.#stored(owner, id)?.live;
    if (live !== undefined) {
      live.stop("cancelled");
      await live.ended;
      return live.transcript.response();
    }
    const transcript = await this.#transcript(owner, id);
    const { status } = transcript.state;
    if (!transcript.hasEnded) throw runsElsewhere(id);
    // As at OpenAI, cancelling twice returns the response twice.
    if (status === "cancelled") return transcript.response();
    throw invalid("response_id", `must name a response that is running; ${show(id)} is ${status}`);
  }

  /** @throws `response_not_found`, `response_busy` while it runs */
  async delete(owner: string, id: string): Promise<void> {
    if (this.#stored(owner, id) !== undefined) {
      const message = `response ${id} is running: cancel it first`;
      throw new DenseMambaError("response_busy", message, { param: "response_id" });
    }
    if (!(await this.#transcript(owner, id)).hasEnded) throw runsElsewhere(id);
    await this.#records.delete(owner, id);
  }

  /** Ends all that run as failed, and waits until their records are saved. */
  async close(): Promise<void> {
    const error = new DenseMambaError("shutting_down", "the server was shut down before the response was finished");
    const all = [...this.#running.values()];
    for (const { live } of all) live.stop(error);
    await Promise.all(all.map(({ live }) => live.ended));
  }

  /**
   * A response that cannot be stored is answered with `store: false`. A background response fails
   * instead, since only its record is known.
   * @throws `store_unavailable` for a background response; whatever else the store throws
   */
  async #save(owner: string, response: StoredResponse): Promise<void> {
    const { settings, head } = response.transcript;
    if (settings.background) return this.#records.save(owner, response);
    if (!settings.store) return;
    try {
      await this.#records.save(owner, response);
    } catch (error) {
      if (!(error instanceof DenseMambaError && error.code === "store_unavailable")) throw error;
      response.transcript.markUnstored();
      // Its state alone is of no use.
      await this.#records.delete(owner, head.id).catch(() => {});
    }
  }

  async #beginTurn(owner: string, { settings, input }: ResponseTask): Promise<ConversationTurn | undefined> {
    const { conversationId: id } = settings;
    return id === undefined ? undefined : this.conversations.begin(owner, id, this.#deps.model.name, input);
  }

  /** A response that failed or was cancelled is no part of its conversation. */
  async #endTurn(turn: ConversationTurn | undefined, { transcript, input }: StoredResponse): Promise<void> {
    const { status } = transcript.state;
    if (status !== "completed" && status !== "incomplete") return;
    const items = [...input.map(toInputItemObject), ...transcript.response().output];
    await turn?.append(items, transcript.settings.store ? transcript.head.id : undefined);
  }

  /**
   * Tries `read` with the state of a conversation, and with all of its messages where there is no
   * such state.
   */
  async #continuing<T>(
    past: ConversationPast | undefined,
    previousKey: ConversationKey | undefined,
    read: (from: { messages: readonly ChatMessage[]; resumeFrom: ConversationKey | undefined }) => Promise<T>,
  ): Promise<T> {
    if (past === undefined) return read({ messages: [], resumeFrom: previousKey });
    const { resume } = past;
    if (resume !== undefined) {
      const resumeFrom = { type: "response", id: resume.responseId } as const;
      try {
        return await read({ messages: await resume.messages(), resumeFrom });
      } catch (error) {
        if (!isStateGone(error)) throw error;
      }
    }
    return read({ messages: await past.messages(), resumeFrom: undefined });
  }

  async #admit(
    args: CreateArgs,
    id: string,
    { abort, turn }: { readonly abort: AbortController; readonly turn: ConversationTurn | undefined },
  ): Promise<AdmittedGeneration> {
    const { owner, task, unstored, signal } = args;
    const { settings, request } = task;
    const saveAs: ConversationKey | undefined = settings.store
      ? { type: "response", id }
      : unstored && { type: "unstored", id };
    const onGone = () => abort.abort();
    signal.addEventListener("abort", onGone, { once: true });
    if (signal.aborted) onGone();
    try {
      return await this.#continuing(turn, previous(task, unstored), (from) => {
        const keys = { ...(from.resumeFrom && { resumeFrom: from.resumeFrom }), ...(saveAs && { saveAs }) };
        const whole = { ...withMessages(request, from.messages), ...keys, owner, signal: abort.signal };
        return admit(this.#deps.generator.generate(whole));
      });
    } finally {
      signal.removeEventListener("abort", onGone);
    }
  }

  /** A running response that can be found by its id. */
  #stored(owner: string, id: string): Running | undefined {
    const running = this.#running.get(keyOf(owner, id));
    return running?.live.transcript.settings.store ? running : undefined;
  }

  async #transcript(owner: string, id: string): Promise<Transcript> {
    const running = this.#stored(owner, id);
    if (running !== undefined) {
      // Its end is visible only once it is saved.
      if (running.live.transcript.hasEnded) await running.live.ended;
      return running.live.transcript;
    }
    return (await this.#records.read(owner, id)).transcript;
  }

  #newHead(): ResponseHead {
    const id = this.#deps.newId();
    return { id: `resp_${id}`, itemId: `msg_${id}`, createdS: this.#nowS(), model: this.#deps.model.name };
  }

  #nowS(): number {
    return Math.floor(this.#deps.nowMs() / 1000);
  }
}

/** With messages before its own. */
function withMessages(request: ResponseTask["request"], before: readonly ChatMessage[]): ResponseTask["request"] {
  if (before.length === 0) return request;
  const prompts = request.prompts.map((prompt) =>
    prompt.type === "chat" ? { ...prompt, messages: [...before, ...prompt.messages] } : prompt,
  );
  return { ...request, prompts };
}

/** A response that was deleted, has expired, or was made by another version of the model. */
function isStateGone(error: unknown): boolean {
  const codes: readonly string[] = ["previous_response_not_found", "state_lost", "invalid_snapshot"];
  return error instanceof DenseMambaError && codes.includes(error.code);
}

/** A response of another connection is looked up among the stored ones, and not found. */
function previous(
  { settings: { previousResponseId: id }, beginsFrom }: ResponseTask,
  unstored: UnstoredResponses | undefined,
): ConversationKey | undefined {
  if (beginsFrom !== undefined) return beginsFrom;
  return id === null ? undefined : { type: unstored?.has(id) ? "unstored" : "response", id };
}

function unattended({ task, isStreamed }: CreateArgs): Unattended {
  const { background, store } = task.settings;
  if (background) return "continue";
  return store && isStreamed ? "wait" : "cancel";
}

/** Owners are hexadecimal or empty: no two pairs have one key. */
function keyOf(owner: string, id: string): string {
  return `${owner}:${id}`;
}

function runsElsewhere(id: string): DenseMambaError {
  const message = `response ${id} is running on another server: it can be retrieved here, and streamed once it has ended`;
  return new DenseMambaError("response_busy", message, { param: "response_id", retryAfterMs: 1000 });
}
