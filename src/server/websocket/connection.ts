/**
 * One WebSocket in OpenAI's Responses mode: responses run in lanes and answer with the events that SSE would carry. Closing
 * the connection drops what waits, forgets what was not stored, and leaves the rest to come back to.
 */
import type { Duplex } from "node:stream";
import type { RawData, WebSocket } from "ws";
import { DenseMambaError } from "../../errors.ts";
import type { ServerDeps } from "../deps.ts";
import { boundsOf } from "../endpoints/generate.ts";
import { usageFields } from "../http/request-log.ts";
import { toErrorEvent, toHttpError } from "../openai/errors.ts";
import { checkModel } from "../openai/models.ts";
import { show } from "../openai/validate.ts";
import type { LiveResponse } from "../responses/live-response.ts";
import { type responseBody, toResponseTask } from "../responses/request.ts";
import type { Responses } from "../responses/responses.ts";
import { follow, type Reading } from "../responses/subscription.ts";
import { UnstoredResponses } from "../responses/unstored.ts";
import { type ClientCommand, type ClientJob, onLane, parseClientMessage, toCommand } from "./messages.ts";
import { Outbox } from "./outbox.ts";
import { type LaneName, Lanes } from "./stream-queues.ts";

const GOING_AWAY = 1001;
const UNSUPPORTED_DATA = 1003;
const POLICY_VIOLATION = 1008;
const TRY_AGAIN_LATER = 1013;

/** A client that sends so many invalid messages in a row is disconnected. */
const MAX_REFUSED = 100;
/** A control frame's type, length and mask. */
const CONTROL_HEADER_BYTES = 6;

export interface ConnectionContext {
  readonly deps: ServerDeps;
  readonly responses: Responses;
  readonly schema: ReturnType<typeof responseBody>;
  readonly owner: string;
  readonly requestId: string;
}

interface Running {
  readonly reading: Reading;
  readonly from: number;
  /** Absent where it was joined: then it is somebody else's to look after. */
  readonly live?: LiveResponse;
}

export class ResponsesConnection {
  readonly #socket: WebSocket;
  readonly #context: ConnectionContext;
  readonly #outbox: Outbox;
  readonly #lanes: Lanes<ClientJob>;
  readonly #running = new Map<LaneName, Running>();
  readonly #unstored: UnstoredResponses;
  readonly #closed = new AbortController();
  /** Lanes whose response is not admitted yet. */
  readonly #starting = new Map<LaneName, AbortController>();
  #numRefused = 0;
  #isPaused = false;
  readonly #expiry: NodeJS.Timeout;

  /** @param transport what `socket` writes to */
  constructor(socket: WebSocket, transport: Duplex, context: ConnectionContext) {
    const { webSocket, stallTimeoutMs } = context.deps.options;
    this.#socket = socket;
    this.#context = context;
    this.#outbox = new Outbox(socket, transport, webSocket, stallTimeoutMs);
    this.#lanes = new Lanes(webSocket);
    this.#unstored = new UnstoredResponses(webSocket.maxUnstoredPerLane, (id) => this.#forget(id));
    this.#expiry = setTimeout(() => this.#expire(), webSocket.maxConnectionMs);
    const incoming = context.deps.receiving.begin((maxBytes) => {
      socket.close(TRY_AGAIN_LATER, `more than ${maxBytes} bytes of unfinished messages`);
      socket.terminate();
    });
    // Before ws takes the bytes, and finds a message complete in them.
    transport.prependListener("data", (bytes: Uint8Array) => incoming.add(bytes.byteLength));
    socket.on("message", (data, isBinary) => {
      incoming.add(-incoming.bytes);
      this.#receive(data, isBinary);
      this.#holdBack();
    });
    const onControlFrame = (payload: Uint8Array) => {
      incoming.add(-Math.min(incoming.bytes, payload.byteLength + CONTROL_HEADER_BYTES));
      this.#holdBack();
    };
    socket.on("ping", onControlFrame);
    socket.on("pong", onControlFrame);
    socket.on("close", () => {
      incoming.end();
      this.#close();
    });
    // The close event follows; ws has answered a broken frame or an oversized message with its code already.
    socket.on("error", (error) => context.deps.log.debug({ err: error, ...this.#logFields }, "websocket error"));
  }

  get isIdle(): boolean {
    return this.#lanes.isIdle;
  }

  #receive(data: RawData, isBinary: boolean): void {
    if (this.#socket.readyState !== this.#socket.OPEN) return;
    if (isBinary) {
      this.#socket.close(UNSUPPORTED_DATA, "messages are JSON text");
      return;
    }
    const { deps, schema } = this.#context;
    const bytes = data as Buffer; // of a server with ws's own `binaryType`
    let lane: LaneName;
    let command: ClientCommand;
    try {
      const message = parseClientMessage(bytes, deps.options.limits.json);
      lane = message.streamId;
      command = toCommand(message, schema, deps.log);
      this.#numRefused = 0;
    } catch (error) {
      this.#refuse(error, lane);
      this.#numRefused++;
      if (this.#numRefused < MAX_REFUSED) return;
      this.#socket.close(POLICY_VIOLATION, `${MAX_REFUSED} messages in a row could not be understood`);
      return;
    }
    try {
      if (command.type === "cancel") this.#cancel(command.responseId, lane);
      else {
        this.#lanes.add(lane, command, bytes.byteLength);
        this.#startNext();
      }
    } catch (error) {
      this.#refuse(error, lane);
    }
  }

  /** Every message and every ping is answered. While a client does not read the answers, we do not read its messages. */
  #holdBack(): void {
    if (this.#isPaused || !this.#outbox.isFull) return;
    this.#isPaused = true;
    this.#socket.pause();
    const goOn = () => {
      this.#isPaused = false;
      this.#socket.resume();
    };
    // A client that reads nothing for too long has been cut off.
    this.#outbox.drained().then(goOn, () => {});
  }

  #startNext(): void {
    for (let turn = this.#lanes.next(); turn !== undefined; turn = this.#lanes.next()) void this.#take(turn);
  }

  async #take({ lane, job }: { readonly lane: LaneName; readonly job: ClientJob }): Promise<void> {
    try {
      const running = await (job.type === "create" ? this.#create(job, lane) : this.#attach(job));
      this.#running.set(lane, running);
      if (this.#closed.signal.aborted) running.reading.leave();
      await this.#send(running, lane);
    } catch (error) {
      this.#refuse(error, lane);
    }
    this.#running.delete(lane);
    this.#lanes.done(lane);
    this.#startNext();
  }

  async #create({ body }: Extract<ClientJob, { type: "create" }>, lane: LaneName): Promise<Running> {
    const { deps, responses, owner, requestId } = this.#context;
    checkModel(body.model, deps.model);
    const task = toResponseTask(body, boundsOf(deps));
    const cancelled = new AbortController();
    const signal = AbortSignal.any([this.#closed.signal, cancelled.signal]);
    this.#starting.set(lane, cancelled);
    try {
      const created = await responses.create({ owner, task, signal, requestId, connection: this, isFollowed: true });
      if (cancelled.signal.aborted) created.live.stop("cancelled");
      return { ...created, from: 0 };
    } catch (error) {
      throw cancelled.signal.aborted ? cancelledBeforeBegin() : error;
    } finally {
      this.#starting.delete(lane);
    }
  }

  #attach({ responseId, startingAfter }: Extract<ClientJob, { type: "attach" }>): Promise<Running> {
    const { responses, owner } = this.#context;
    return responses.read(owner, responseId, startingAfter);
  }

  async #send({ reading, from, live }: Running, lane: LaneName): Promise<void> {
    const { log } = this.#context.deps;
    const named = onLane(lane);
    await follow(reading, from, ({ json }) => this.#outbox.send(named(json)), this.#outbox).catch((error: unknown) => {
      log.debug({ err: error, ...this.#logFields }, "websocket cut off");
    });
    if (live === undefined) return;
    const { head, settings, state } = live.transcript;
    // A response that can be come back to goes on without this connection.
    if (settings.store && !live.hasEnded) return;
    await live.ended;
    if (!settings.store) {
      const isKept = state.status === "completed" || state.status === "incomplete";
      if (isKept) this.#unstored.add(lane, head.id);
      else this.#forget(head.id);
    }
    const usage = usageFields(state.usage ?? undefined);
    log.info({ ...this.#logFields, responseId: head.id, ...usage }, "websocket response");
  }

  /** @throws `response_not_found` */
  #cancel(responseId: unknown, lane: LaneName): void {
    const all = [...this.#running.values()];
    const isMeant = ({ reading }: Running) => reading.transcript.head.id === responseId;
    const running = responseId === undefined ? this.#running.get(lane) : all.find(isMeant);
    if (running === undefined) {
      if (responseId === undefined && this.#cancelWaiting(lane)) return;
      const which = responseId === undefined ? "no response" : `not the response ${show(responseId)}`;
      throw new DenseMambaError("response_not_found", `${which} is running on this connection`, {
        param: "response_id",
      });
    }
    if (running.live !== undefined) running.live.stop("cancelled");
    else {
      const { responses, owner } = this.#context;
      const { id } = running.reading.transcript.head;
      responses.cancel(owner, id).catch((error: unknown) => this.#refuse(error, lane));
    }
  }

  /** Cancels a response that has no id yet. @returns whether there was one */
  #cancelWaiting(lane: LaneName): boolean {
    const starting = this.#starting.get(lane);
    if (starting !== undefined) starting.abort();
    else if (this.#lanes.drop(lane)) this.#refuse(cancelledBeforeBegin(), lane);
    else return false;
    return true;
  }

  #refuse(error: unknown, lane: LaneName): void {
    if (toHttpError(error).isFault) {
      this.#context.deps.log.error({ err: error, ...this.#logFields }, "websocket request failed");
    }
    this.#outbox.send(toErrorEvent(error, lane));
  }

  #expire(): void {
    const { maxConnectionMs } = this.#context.deps.options.webSocket;
    const message = `a WebSocket connection lasts at most ${maxConnectionMs / 60_000} minutes: open another one to go on`;
    this.#refuse(new DenseMambaError("websocket_connection_expired", message), undefined);
    this.#socket.close(GOING_AWAY, "the connection has reached its age limit");
  }

  #close(): void {
    clearTimeout(this.#expiry);
    this.#lanes.clear();
    this.#closed.abort();
    for (const { reading } of this.#running.values()) reading.leave();
    this.#unstored.close();
  }

  #forget(id: string): void {
    const { responses, owner, deps } = this.#context;
    responses.forget(owner, id).catch((error: unknown) => {
      deps.log.warn({ err: error, responseId: id, ...this.#logFields }, "an unstored response could not be forgotten");
    });
  }

  get #logFields() {
    return { requestId: this.#context.requestId };
  }
}

function cancelledBeforeBegin(): DenseMambaError {
  return new DenseMambaError("aborted", "the response was cancelled before it began");
}
