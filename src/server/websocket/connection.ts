/**
 * One WebSocket in OpenAI's Responses mode: responses run in streams, and their events are those of
 * SSE. When the connection closes, waiting jobs are dropped and unstored responses forgotten;
 * stored ones run on for the client to come back.
 */
import type { Duplex } from "node:stream";
import type { RawData, WebSocket } from "ws";
import { DenseMambaError } from "../../errors.ts";
import type { ServerDeps } from "../deps.ts";
import { type callerFields, usageFields } from "../http/request-log.ts";
import { toErrorEvent, toHttpError } from "../openai/errors.ts";
import { boundsOf, checkModel } from "../openai/fields.ts";
import { parseBody, show } from "../openai/validate.ts";
import type { LiveResponse } from "../responses/live-response.ts";
import { withItems } from "../responses/references.ts";
import { type ResponseBody, type responseBody, toResponseTask } from "../responses/request.ts";
import type { Responses } from "../responses/responses.ts";
import { type Subscription, streamEvents } from "../responses/subscription.ts";
import type { RenderedEvent } from "../responses/transcript.ts";
import { UnstoredResponses } from "../responses/unstored.ts";
import { type ClientCommand, type ClientJob, parseClientMessage, toCommand, withStreamId } from "./messages.ts";
import { Outbox } from "./outbox.ts";
import { type StreamId, StreamQueues, type Turn } from "./stream-queues.ts";

const GOING_AWAY = 1001;
const UNSUPPORTED_DATA = 1003;
const POLICY_VIOLATION = 1008;
const TRY_AGAIN_LATER = 1013;

/** A client that sends this many invalid messages in a row is disconnected. */
const MAX_REFUSED = 100;
/** Type, length and mask of a control frame. */
const CONTROL_HEADER_BYTES = 6;

/** One model. */
export interface ConnectionService {
  readonly deps: ServerDeps;
  readonly responses: Responses;
  readonly schema: ReturnType<typeof responseBody>;
}

export interface ConnectionContext extends ConnectionService {
  /** If there are several; the context's own is the first. */
  readonly models?: ConnectionModels | undefined;
  readonly owner: string;
  readonly requestId: string;
  /** For the log. */
  readonly caller: ReturnType<typeof callerFields>;
}

/** @throws `model_not_found`, `model_load_failed`; `response_not_found` is left to the service */
export interface ConnectionModels {
  forMessage(
    body: object,
    owner: string,
    findUnstored: (id: string) => ConnectionService | undefined,
  ): Promise<ConnectionService>;
  forResponse(id: string, owner: string): Promise<ConnectionService>;
}

interface Running {
  readonly subscription: Subscription;
  readonly from: number;
  /** Absent on `response.attach`: the response belongs to the connection that created it. */
  readonly live?: LiveResponse;
}

export class ResponsesConnection {
  readonly #socket: WebSocket;
  readonly #context: ConnectionContext;
  readonly #outbox: Outbox;
  readonly #queues: StreamQueues<ClientJob>;
  readonly #running = new Map<StreamId, Running>();
  readonly #unstored: UnstoredResponses;
  readonly #closed = new AbortController();
  /** Streams whose response is not admitted yet. */
  readonly #starting = new Map<StreamId, AbortController>();
  /** By the ids of responses that are not stored: the models that they are of. */
  readonly #services = new Map<string, ConnectionService>();
  #numRefused = 0;
  #isPaused = false;
  readonly #expiry: NodeJS.Timeout;

  /** @param transport what `socket` writes to */
  constructor(socket: WebSocket, transport: Duplex, context: ConnectionContext) {
    const { webSocket, stallTimeoutMs } = context.deps.options;
    this.#socket = socket;
    this.#context = context;
    this.#outbox = new Outbox(socket, transport, webSocket, stallTimeoutMs);
    this.#queues = new StreamQueues(webSocket);
    this.#unstored = new UnstoredResponses(webSocket.maxUnstoredPerStream, (id) => this.#forget(id));
    this.#expiry = setTimeout(() => this.#expire(), webSocket.maxConnectionMs);
    const incoming = context.deps.incomingData.begin((maxBytes) => {
      socket.close(TRY_AGAIN_LATER, `more than ${maxBytes} bytes of unfinished messages`);
      socket.terminate();
    });
    // Before ws takes the bytes and finds that they complete a message.
    transport.prependListener("data", (bytes: Uint8Array) => incoming.add(bytes.byteLength));
    socket.on("message", (data, isBinary) => {
      incoming.add(-incoming.bytes);
      this.#receive(data, isBinary);
      this.#pauseIfFull();
    });
    const onControlFrame = (payload: Uint8Array) => {
      incoming.add(-Math.min(incoming.bytes, payload.byteLength + CONTROL_HEADER_BYTES));
      this.#pauseIfFull();
    };
    socket.on("ping", onControlFrame);
    socket.on("pong", onControlFrame);
    socket.on("close", () => {
      incoming.end();
      this.#close();
    });
    // The close event follows; ws has already answered a broken frame or an oversized message with
    // its code.
    socket.on("error", (error) => context.deps.log.debug({ err: error, ...this.#logFields }, "websocket error"));
  }

  get isIdle(): boolean {
    return this.#queues.isIdle;
  }

  #receive(data: RawData, isBinary: boolean): void {
    if (this.#socket.readyState !== this.#socket.OPEN) return;
    if (isBinary) {
      this.#socket.close(UNSUPPORTED_DATA, "messages are JSON text");
      return;
    }
    const { deps, schema } = this.#context;
    const bytes = data as Buffer; // of a server with ws's own `binaryType`
    let streamId: StreamId;
    let command: ClientCommand;
    try {
      const message = parseClientMessage(bytes, deps.options.limits.json);
      streamId = message.streamId;
      command = toCommand(message, this.#context.models ? undefined : schema, deps.log);
      this.#numRefused = 0;
    } catch (error) {
      this.#refuse(error, streamId);
      this.#numRefused++;
      if (this.#numRefused < MAX_REFUSED) return;
      this.#socket.close(POLICY_VIOLATION, `${MAX_REFUSED} messages in a row could not be understood`);
      return;
    }
    try {
      if (command.type === "cancel") this.#cancel(command.responseId, streamId);
      else {
        this.#queues.add(streamId, command, bytes.byteLength);
        this.#startNext();
      }
    } catch (error) {
      this.#refuse(error, streamId);
    }
  }

  /**
   * Every message and ping is answered. While a client does not read the answers, its messages are
   * not read.
   */
  #pauseIfFull(): void {
    if (this.#isPaused || !this.#outbox.isFull) return;
    this.#isPaused = true;
    this.#socket.pause();
    const resume = () => {
      this.#isPaused = false;
      this.#socket.resume();
    };
    // It rejects if the client has been cut off.
    this.#outbox.drained().then(resume, () => {});
  }

  #startNext(): void {
    for (let turn = this.#queues.next(); turn !== undefined; turn = this.#queues.next()) void this.#run(turn);
  }

  async #run({ streamId, job }: Turn<ClientJob>): Promise<void> {
    try {
      const running = await (job.type === "attach" ? this.#attach(job) : this.#create(job, streamId));
      this.#running.set(streamId, running);
      if (this.#closed.signal.aborted) running.subscription.close();
      await this.#send(running, streamId);
    } catch (error) {
      this.#refuse(error, streamId);
    }
    this.#running.delete(streamId);
    this.#queues.done(streamId);
    this.#startNext();
  }

  async #create(job: Exclude<ClientJob, { type: "attach" }>, streamId: StreamId): Promise<Running> {
    const { owner, requestId } = this.#context;
    const cancelled = new AbortController();
    const signal = AbortSignal.any([this.#closed.signal, cancelled.signal]);
    this.#starting.set(streamId, cancelled);
    try {
      const service = await this.#serviceFor(job.body);
      const { deps, responses } = service;
      const body = job.type === "create" ? job.body : await this.#withItems(job.body, service);
      checkModel(body.model, deps.model);
      const task = toResponseTask(body, boundsOf(deps));
      const created = await responses.create({
        owner,
        task,
        signal,
        requestId,
        unstored: this.#unstored,
        isStreamed: true,
      });
      if (!task.settings.store) this.#services.set(created.live.transcript.head.id, service);
      if (cancelled.signal.aborted) created.live.stop("cancelled");
      return { ...created, from: 0 };
    } catch (error) {
      throw cancelled.signal.aborted ? cancelledBeforeBegin() : error;
    } finally {
      this.#starting.delete(streamId);
    }
  }

  /** @throws `model_not_found`, `model_load_failed` */
  async #serviceFor(body: object): Promise<ConnectionService> {
    const { models, owner } = this.#context;
    return models?.forMessage(body, owner, (id) => this.#services.get(id)) ?? this.#context;
  }

  /** @throws `item_not_found`, and as `parseBody` */
  async #withItems(body: object, { deps, responses, schema }: ConnectionService): Promise<ResponseBody> {
    const { owner } = this.#context;
    const findItems = (id: string) => responses.items(owner, id);
    return parseBody(schema, await withItems(body, findItems, deps.options.limits.maxBodyBytes), deps.log);
  }

  async #attach({ responseId, startingAfter }: Extract<ClientJob, { type: "attach" }>): Promise<Running> {
    const { models, owner } = this.#context;
    const { responses } = (await models?.forResponse(responseId, owner)) ?? this.#context;
    return responses.subscribe(owner, responseId, startingAfter);
  }

  async #send({ subscription, from, live }: Running, streamId: StreamId): Promise<void> {
    const { log } = this.#context.deps;
    const named = withStreamId(streamId);
    const emit = ({ json }: RenderedEvent) => this.#outbox.send(named(json));
    await streamEvents(subscription, from, emit, this.#outbox).catch((error: unknown) => {
      log.debug({ err: error, ...this.#logFields }, "websocket cut off");
    });
    if (live === undefined) return;
    const { head, settings, state } = live.transcript;
    // A stored response runs on without this connection.
    if (settings.store && !live.hasEnded) return;
    await live.ended;
    if (!settings.store) {
      const hasState = state.status === "completed" || state.status === "incomplete";
      if (hasState) this.#unstored.keep(streamId, head.id);
      else this.#unstored.drop(head.id);
    }
    const fields = { ...usageFields(state.usage ?? undefined), ...(state.error && { errorCode: state.error.code }) };
    log.info({ ...this.#logFields, responseId: head.id, ...fields }, "websocket response");
  }

  /** @throws `response_not_found` */
  #cancel(responseId: unknown, streamId: StreamId): void {
    const all = [...this.#running.values()];
    const isMeant = ({ subscription }: Running) => subscription.transcript.head.id === responseId;
    const running = responseId === undefined ? this.#running.get(streamId) : all.find(isMeant);
    if (running === undefined) {
      if (responseId === undefined && this.#cancelWaiting(streamId)) return;
      const which = responseId === undefined ? "no response" : `not the response ${show(responseId)}`;
      throw new DenseMambaError("response_not_found", `${which} is running on this connection`, {
        param: "response_id",
      });
    }
    if (running.live !== undefined) running.live.stop("cancelled");
    else {
      const { id } = running.subscription.transcript.head;
      this.#cancelAttached(id).catch((error: unknown) => this.#refuse(error, streamId));
    }
  }

  async #cancelAttached(id: string): Promise<void> {
    const { models, owner } = this.#context;
    const { responses } = (await models?.forResponse(id, owner)) ?? this.#context;
    await responses.cancel(owner, id);
  }

  /** Cancels a response that has not begun. @returns whether there was one */
  #cancelWaiting(streamId: StreamId): boolean {
    const starting = this.#starting.get(streamId);
    if (starting !== undefined) starting.abort();
    else if (this.#queues.drop(streamId)) this.#refuse(cancelledBeforeBegin(), streamId);
    else return false;
    return true;
  }

  #refuse(error: unknown, streamId: StreamId): void {
    if (toHttpError(error).isFault) {
      this.#context.deps.log.error({ err: error, ...this.#logFields }, "websocket request failed");
    }
    this.#outbox.send(toErrorEvent(error, streamId));
  }

  #expire(): void {
    const { maxConnectionMs } = this.#context.deps.options.webSocket;
    const message = `a WebSocket connection lasts at most ${maxConnectionMs / 60_000} minutes: open another one to go on`;
    this.#refuse(new DenseMambaError("websocket_connection_expired", message), undefined);
    this.#socket.close(GOING_AWAY, "the connection has reached its age limit");
  }

  #close(): void {
    clearTimeout(this.#expiry);
    this.#queues.clear();
    this.#closed.abort();
    for (const { subscription } of this.#running.values()) subscription.close();
    this.#unstored.close();
  }

  #forget(id: string): void {
    const { owner } = this.#context;
    const { deps } = this.#services.get(id) ?? this.#context;
    this.#services.delete(id);
    deps.generator.conversations.deleteUnstored(owner, id).catch((error: unknown) => {
      deps.log.warn({ err: error, responseId: id, ...this.#logFields }, "an unstored response could not be forgotten");
    });
  }

  get #logFields() {
    const { requestId, caller } = this.#context;
    return { requestId, ...caller };
  }
}

function cancelledBeforeBegin(): DenseMambaError {
  return new DenseMambaError("aborted", "the response was cancelled before it began");
}
