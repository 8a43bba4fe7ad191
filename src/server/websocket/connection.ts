/**
 * One WebSocket in OpenAI's Responses mode: `response.create` messages run one after the other, in order, and answer with
 * the events that SSE would carry. Closing the connection ends what runs and drops what waits.
 */
import type { RawData, WebSocket } from "ws";
import { DenseMambaError } from "../../errors.ts";
import type { ServerDeps } from "../deps.ts";
import { usageFields } from "../middleware/access-log.ts";
import { toErrorEvent, toHttpError } from "../openai/error.ts";
import { checkModel } from "../openai/models.ts";
import { ResponseStream } from "../openai/render-responses.ts";
import { type ResponseBody, type responseBody, toResponseTask } from "../openai/responses.ts";
import { show } from "../openai/validate.ts";
import { onLane, parseClientMessage, toCommand } from "../openai/websocket-message.ts";
import { responseHead } from "../routes/responses.ts";
import { boundsOf } from "../routes/serving.ts";
import { admit, pump } from "../stream/pump.ts";
import { Outbox } from "./outbox.ts";

interface Job {
  readonly streamId: string | undefined;
  readonly body: ResponseBody;
}

export interface ConnectionContext {
  readonly deps: ServerDeps;
  readonly schema: ReturnType<typeof responseBody>;
  readonly requestId: string;
}

export class ResponsesConnection {
  readonly #socket: WebSocket;
  readonly #context: ConnectionContext;
  readonly #outbox: Outbox;
  readonly #waiting: Job[] = [];
  /** Responses made with `store: false`: they can be continued while the connection lasts. */
  readonly #unstored: string[] = [];
  #running: { readonly abort: AbortController; readonly responseId: string } | undefined;

  constructor(socket: WebSocket, context: ConnectionContext) {
    const { options } = context.deps;
    this.#socket = socket;
    this.#context = context;
    this.#outbox = new Outbox(socket, options.webSocket, options.stallTimeoutMs);
    socket.on("message", (data, isBinary) => this.#receive(data, isBinary));
    socket.on("close", () => this.#close());
    // The close event follows; ws has answered a broken frame or an oversized message with its code already.
    socket.on("error", (error) => context.deps.log.debug({ err: error, ...this.#logFields }, "websocket error"));
  }

  get isIdle(): boolean {
    return this.#running === undefined && this.#waiting.length === 0;
  }

  #receive(data: RawData, isBinary: boolean): void {
    if (isBinary) {
      this.#socket.close(1003, "messages are JSON text");
      return;
    }
    let streamId: string | undefined;
    try {
      const message = parseClientMessage(data.toString());
      streamId = message.streamId;
      const command = toCommand(message, this.#context.schema, this.#context.deps.log);
      switch (command.type) {
        case "create":
          this.#enqueue({ streamId, body: command.body });
          return;
        case "cancel":
          this.#cancel(command.responseId);
          return;
      }
    } catch (error) {
      this.#refuse(error, streamId);
    }
  }

  #enqueue(job: Job): void {
    const { maxQueued } = this.#context.deps.options.webSocket;
    if (this.#running !== undefined && this.#waiting.length >= maxQueued) {
      const message = `a connection may have at most ${maxQueued} responses waiting; got one more`;
      throw new DenseMambaError("queue_full", message);
    }
    this.#waiting.push(job);
    if (this.#running === undefined) void this.#runAll();
  }

  #cancel(responseId: unknown): void {
    if (this.#running === undefined || (responseId !== undefined && responseId !== this.#running.responseId)) {
      const which = responseId === undefined ? "no response" : `not the response ${show(responseId)}`;
      throw new DenseMambaError("response_not_found", `${which} is running on this connection`, {
        param: "response_id",
      });
    }
    this.#running.abort.abort();
  }

  async #runAll(): Promise<void> {
    for (let job = this.#waiting.shift(); job !== undefined; job = this.#waiting.shift()) {
      try {
        await this.#run(job);
      } catch (error) {
        this.#refuse(error, job.streamId);
      } finally {
        this.#running = undefined;
      }
    }
  }

  /** @throws whatever the request was refused with; once it is admitted, failures are events */
  async #run({ body, streamId }: Job): Promise<void> {
    const { deps } = this.#context;
    const abort = new AbortController();
    const head = responseHead(deps);
    this.#running = { abort, responseId: head.id };
    checkModel(body.model, deps.model);
    const task = toResponseTask(body, boundsOf(deps));
    const events = deps.generator.generate({
      owner: "",
      ...task.request,
      keepAs: { type: "response", id: head.id },
      signal: abort.signal,
    });
    const admitted = await admit(events);
    if (!task.store) this.#unstored.push(head.id);
    const lane = onLane(streamId);
    const nowS = () => Math.floor(deps.nowMs() / 1000);
    const renderer = new ResponseStream(head, task, nowS, (json) => this.#outbox.send(lane(json)));
    const usage = await pump(admitted, renderer, this.#outbox, (error) => {
      abort.abort();
      if (toHttpError(error).isFault) deps.log.error({ err: error, ...this.#logFields }, "response failed");
    });
    deps.log.info({ ...this.#logFields, responseId: head.id, ...usageFields(usage) }, "websocket response");
  }

  #refuse(error: unknown, streamId: string | undefined): void {
    if (toHttpError(error).isFault) {
      this.#context.deps.log.error({ err: error, ...this.#logFields }, "websocket request failed");
    }
    this.#outbox.send(toErrorEvent(error, streamId));
  }

  #close(): void {
    this.#waiting.length = 0;
    this.#running?.abort.abort();
    const { conversations } = this.#context.deps.generator;
    for (const id of this.#unstored) {
      // It may never have been kept, or have been evicted since.
      conversations.deleteResponse("", id).catch((error: unknown) => {
        this.#context.deps.log.debug(
          { err: error, ...this.#logFields },
          "an unstored response was not there to delete",
        );
      });
    }
  }

  get #logFields() {
    return { requestId: this.#context.requestId };
  }
}
