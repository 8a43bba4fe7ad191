/**
 * All responses of the server: those that are being made, and the records of those that were. A response belongs to the key
 * that made it; for any other it does not exist. The HTTP routes and the WebSocket are two doors to this.
 */
import { DenseMambaError } from "../../errors.ts";
import type { ConversationKey } from "../../sessions/keys.ts";
import type { ServerDeps } from "../deps.ts";
import { type AdmittedGeneration, admit } from "../http/pump.ts";
import { toHttpError } from "../openai/errors.ts";
import { invalid, show } from "../openai/validate.ts";
import { type InputItem, withIds } from "./input-items.ts";
import { LiveResponse, type Unattended } from "./live-response.ts";
import { type KeptResponse, ResponseRecords } from "./records.ts";
import type { ResponseTask } from "./request.ts";
import type { ResponseHead, ResponseObject } from "./response.ts";
import { keptReading, type Reading } from "./subscription.ts";
import { Transcript } from "./transcript.ts";

export interface CreateArgs {
  readonly owner: string;
  readonly task: ResponseTask;
  /** Until it is admitted: the client has gone. */
  readonly signal: AbortSignal;
  /** The connection that `store: false` responses live with; without one nothing is kept of them. */
  readonly connection?: object;
  readonly requestId: string;
  /** Whether the client follows its events: one that only waits for the end could not come back for it. */
  readonly isFollowed: boolean;
}

export interface CreatedResponse {
  readonly live: LiveResponse;
  /** Joined already; to be left. */
  readonly reading: Reading;
}

interface Running {
  readonly live: LiveResponse;
  readonly input: readonly InputItem[];
}

export class Responses {
  readonly #deps: ServerDeps;
  readonly #records: ResponseRecords;
  /** Those that run, also the ones that are not stored: every generation for a response is in here. */
  readonly #running = new Map<string, Running>();
  /** Kept for one connection only. */
  readonly #unstored = new Map<string, object>();

  constructor(deps: ServerDeps) {
    this.#deps = deps;
    this.#records = new ResponseRecords(deps);
  }

  get numRunning(): number {
    return this.#running.size;
  }

  /** @throws whatever the generation was refused with; once it is admitted, failures are the response's */
  async create(args: CreateArgs): Promise<CreatedResponse> {
    const { owner, task, connection, requestId } = args;
    const { settings } = task;
    const head = this.#newHead();
    const key = keyOf(owner, head.id);
    const abort = new AbortController();
    const admitted = await this.#admit(args, head.id, abort);

    const transcript = new Transcript(head, settings, () => this.#nowS());
    const kept: KeptResponse = { transcript, input: withIds(task.input, head.id) };
    let announced: Promise<void> | undefined;
    const live = new LiveResponse({
      transcript,
      admitted,
      abort,
      unattended: unattended(args),
      options: this.#deps.options.resume,
      pacing: { engine: this.#deps.engine, gapMs: this.#deps.options.streamGapMs },
      observer: this.#deps.observer,
      keep: async () => {
        await announced?.catch(() => {});
        await this.#keep(owner, kept);
      },
    });
    const reading = live.join();
    this.#running.set(key, { live, input: kept.input });
    if (!settings.store && connection !== undefined) this.#unstored.set(key, connection);
    void live.ended.then(() => {
      this.#running.delete(key);
      if (live.error === undefined || !toHttpError(live.error).isFault) return;
      this.#deps.log.error({ err: live.error, requestId, responseId: head.id }, "response failed");
    });
    if (settings.background) {
      // Before its id is told: other servers, and this one after a restart, know of it.
      announced = this.#records.keep(owner, kept, this.#deps.nowMs() + this.#deps.options.resume.backgroundMs);
      await announced.catch((error: unknown) => {
        live.stop("cancelled");
        throw error;
      });
    }
    return { live, reading };
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
   * Joins a response's events, those that were and those that will be.
   * @param startingAfter the number of the last event that the reader has
   * @throws `response_not_found`, `response_busy` if another server makes it, `invalid_value` for a number beyond its events
   */
  async read(
    owner: string,
    id: string,
    startingAfter: number | undefined,
  ): Promise<{ reading: Reading; from: number }> {
    const live = this.#stored(owner, id)?.live;
    const transcript = live?.transcript ?? (await this.#transcript(owner, id));
    if (live === undefined && !transcript.hasEnded) throw elsewhere(id);
    const reading = live?.join() ?? keptReading(transcript);
    const from = startingAfter === undefined ? 0 : startingAfter + 1;
    if (from <= reading.numEvents) return { reading, from };
    const { numEvents } = reading;
    reading.leave();
    const last = numEvents - 1;
    throw invalid("starting_after", `must be at most ${last}, the response's last event so far; got ${startingAfter}`);
  }

  /** @returns the response as it has ended. @throws `response_not_found`, `response_busy`, `invalid_value` if it had ended */
  async cancel(owner: string, id: string): Promise<ResponseObject> {
    const live = this.#stored(owner, id)?.live;
    if (live !== undefined) {
      live.stop("cancelled");
      await live.ended;
      return live.transcript.response();
    }
    const transcript = await this.#transcript(owner, id);
    const { status } = transcript.state;
    if (!transcript.hasEnded) throw elsewhere(id);
    // As at OpenAI: who cancels twice gets the response twice.
    if (status === "cancelled") return transcript.response();
    throw invalid("response_id", `must name a response that is running; ${show(id)} is ${status}`);
  }

  /** @throws `response_not_found`, `response_busy` while it is made */
  async delete(owner: string, id: string): Promise<void> {
    if (this.#stored(owner, id) !== undefined) {
      throw new DenseMambaError("response_busy", `response ${id} is being made: cancel it first`, {
        param: "response_id",
      });
    }
    if (!(await this.#transcript(owner, id)).hasEnded) throw elsewhere(id);
    await this.#records.delete(owner, id);
  }

  /** Forgets a response that was kept for a connection. */
  async forget(owner: string, id: string): Promise<void> {
    this.#unstored.delete(keyOf(owner, id));
    await this.#deps.generator.conversations.deleteUnstored(owner, id);
  }

  /** Ends all that run as failed, and waits until their records are kept. */
  async close(): Promise<void> {
    const error = new DenseMambaError("shutting_down", "the server was shut down before the response was finished");
    const all = [...this.#running.values()];
    for (const { live } of all) live.stop(error);
    await Promise.all(all.map(({ live }) => live.ended));
  }

  /**
   * A response that can't be kept is answered all the same, and says that it isn't stored. One in the background is known
   * by its record alone.
   * @throws `store_unavailable` for one in the background; whatever else the store throws
   */
  async #keep(owner: string, { transcript, input }: KeptResponse): Promise<void> {
    const { settings, head } = transcript;
    if (settings.background) return this.#records.keep(owner, { transcript, input });
    if (!settings.store) return;
    try {
      await this.#records.keep(owner, { transcript, input });
    } catch (error) {
      if (!(error instanceof DenseMambaError && error.code === "store_unavailable")) throw error;
      transcript.tellUnkept();
      // Its state alone is of no use.
      await this.#records.delete(owner, head.id).catch(() => {});
    }
  }

  async #admit(args: CreateArgs, id: string, abort: AbortController): Promise<AdmittedGeneration> {
    const { owner, task, connection, signal } = args;
    const { settings, request } = task;
    const resumeFrom = this.#previous(owner, settings.previousResponseId, connection);
    const keepAs: ConversationKey | undefined = settings.store
      ? { type: "response", id }
      : connection && { type: "unstored", id };
    const onGone = () => abort.abort();
    signal.addEventListener("abort", onGone, { once: true });
    if (signal.aborted) onGone();
    try {
      const keys = { ...(resumeFrom && { resumeFrom }), ...(keepAs && { keepAs }) };
      return await admit(this.#deps.generator.generate({ ...request, ...keys, owner, signal: abort.signal }));
    } finally {
      signal.removeEventListener("abort", onGone);
    }
  }

  /** One that is being made and may be found by its id. */
  #stored(owner: string, id: string): Running | undefined {
    const running = this.#running.get(keyOf(owner, id));
    return running?.live.transcript.settings.store ? running : undefined;
  }

  async #transcript(owner: string, id: string): Promise<Transcript> {
    const running = this.#stored(owner, id);
    if (running !== undefined) {
      // Its end is nobody's before it is kept.
      if (running.live.transcript.hasEnded) await running.live.ended;
      return running.live.transcript;
    }
    return (await this.#records.read(owner, id)).transcript;
  }

  /** What is kept for another connection is looked for among the stored ones, and not found. */
  #previous(owner: string, id: string | null, connection: object | undefined): ConversationKey | undefined {
    if (id === null) return undefined;
    const isOurs = connection !== undefined && this.#unstored.get(keyOf(owner, id)) === connection;
    return { type: isOurs ? "unstored" : "response", id };
  }

  #newHead(): ResponseHead {
    const id = this.#deps.newId();
    return { id: `resp_${id}`, itemId: `msg_${id}`, createdS: this.#nowS(), model: this.#deps.model.name };
  }

  #nowS(): number {
    return Math.floor(this.#deps.nowMs() / 1000);
  }
}

function unattended({ task, isFollowed }: CreateArgs): Unattended {
  const { background, store } = task.settings;
  if (background) return "goes on";
  return store && isFollowed ? "waits" : "ends";
}

/** Owners are hexadecimal or empty: no two pairs have one key. */
function keyOf(owner: string, id: string): string {
  return `${owner}:${id}`;
}

function elsewhere(id: string): DenseMambaError {
  const message = `response ${id} is being made by another server: it can be retrieved here, and streamed when it has ended`;
  return new DenseMambaError("response_busy", message, { param: "response_id", retryAfterMs: 1000 });
}
