/**
 * Responses over one WebSocket. A connection that drops is opened again and its running responses
 * are taken up where they stopped, so that whoever reads the events misses none and sees none
 * twice. Knows nothing of the page.
 */
import { ApiError, UNREACHABLE } from "./errors.ts";
import { isFinal, type ResponseEvent, type ServerMessage } from "./wire.ts";

/** The server runs so many responses of a connection at once. */
const MAX_RUNNING = 16;
const RETRY_DELAYS_MS = [100, 250, 500, 1000, 2000, 4000];
/** A server without a connection to the client for longer than this has cancelled its responses. */
const GIVE_UP_MS = 60_000;
/** What the server closes the connection over so often without a word is refused. */
const MAX_TRIES = 3;

export interface Listener {
  onEvent(event: ResponseEvent): void;
  /** The response was refused, or is lost. Nothing follows. */
  onFailure(error: ApiError): void;
}

export interface SocketOptions {
  readonly url: () => URL;
  /** Without one: undefined. */
  readonly key: () => string | undefined;
  /** Why no connection can be made, if the server says so: a browser does not tell. */
  readonly explain: () => Promise<ApiError | undefined>;
  readonly open?: (url: URL, protocols: string[]) => WebSocket;
  readonly delay?: (ms: number) => Promise<void>;
  readonly now?: () => number;
}

interface Running {
  readonly body: object;
  readonly listener: Listener;
  /** Known from the first event on. */
  responseId: string | undefined;
  lastEvent: number;
  /** How often it has been sent since its last event. */
  numTries: number;
}

export class ResponseSocket {
  readonly #options: Required<SocketOptions>;
  /** By the ids of their streams, of which each has at most one. */
  readonly #running = new Map<string, Running>();
  #socket: WebSocket | undefined;
  #isConnecting = false;

  constructor(options: SocketOptions) {
    this.#options = {
      open: (url, protocols) => new WebSocket(url, protocols),
      delay: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
      now: () => performance.now(),
      ...options,
    };
  }

  /** @param body of `POST /v1/responses` */
  create(body: object, listener: Listener): void {
    this.#start({ body, listener, responseId: undefined, lastEvent: -1, numTries: 0 });
  }

  /** Streams a response that runs, or has ended, from its first event. */
  attach(responseId: string, listener: Listener): void {
    this.#start({ body: {}, listener, responseId, lastEvent: -1, numTries: 0 });
  }

  /** Of a response that has no id yet: it waits for its turn, or for a connection. */
  cancelWaiting(listener: Listener): void {
    for (const [streamId, running] of this.#running) {
      if (running.listener !== listener) continue;
      if (this.#isOpen) this.#send({ type: "response.cancel", stream_id: streamId });
      else {
        this.#running.delete(streamId);
        listener.onFailure(new ApiError("the response was cancelled before it began", { code: "aborted" }));
      }
    }
  }

  /** Opens a new connection, with another key for instance, once it is needed. */
  close(): void {
    this.#socket?.close();
  }

  #start(running: Running): void {
    const free = Array.from({ length: MAX_RUNNING }, (_, index) => String(index)).find((id) => !this.#running.has(id));
    if (free === undefined) {
      running.listener.onFailure(new ApiError(`at most ${MAX_RUNNING} answers can run at once; this is one more`));
      return;
    }
    this.#running.set(free, running);
    if (this.#isOpen) this.#begin(free, running);
    else void this.#connect();
  }

  get #isOpen(): boolean {
    return this.#socket?.readyState === 1;
  }

  #begin(streamId: string, running: Running): void {
    const { body, responseId, lastEvent } = running;
    running.numTries += 1;
    if (responseId === undefined) this.#send({ type: "response.create", stream_id: streamId, ...body });
    else {
      const startingAfter = lastEvent < 0 ? {} : { starting_after: lastEvent };
      this.#send({ type: "response.attach", stream_id: streamId, response_id: responseId, ...startingAfter });
    }
  }

  #send(message: object): void {
    this.#socket!.send(JSON.stringify(message));
  }

  /** Until there is a connection, or nothing that needs one, or no hope. */
  async #connect(): Promise<void> {
    if (this.#isConnecting) return;
    this.#isConnecting = true;
    const { delay, now, explain } = this.#options;
    const startedMs = now();
    for (let attempt = 0; this.#running.size > 0 && !this.#isOpen; attempt++) {
      if (await this.#tryOnce()) continue;
      const refusal = await explain();
      const isHopeless = now() - startedMs > GIVE_UP_MS;
      if (isHopeless || (refusal !== undefined && refusal.status < 500)) {
        this.#failAll(refusal ?? new ApiError(UNREACHABLE));
        break;
      }
      await delay(RETRY_DELAYS_MS[Math.min(attempt, RETRY_DELAYS_MS.length - 1)]!);
    }
    this.#isConnecting = false;
  }

  /** @returns whether there is a connection */
  #tryOnce(): Promise<boolean> {
    const { url, key, open } = this.#options;
    const secret = key();
    // A browser sends no headers of ours; a subprotocol has fewer characters than a key.
    const protocols = secret === undefined ? [] : ["responses", `openai-insecure-api-key.${percentEncoded(secret)}`];
    const socket = open(url(), protocols);
    return new Promise((resolve) => {
      socket.onopen = () => {
        this.#socket = socket;
        for (const [streamId, running] of this.#running) this.#begin(streamId, running);
        resolve(true);
      };
      socket.onmessage = ({ data }) => this.#receive(JSON.parse(String(data)) as ServerMessage);
      socket.onclose = ({ reason }) => {
        resolve(false);
        if (this.#socket !== socket) return;
        this.#socket = undefined;
        for (const [streamId, { numTries, listener }] of this.#running) {
          if (numTries < MAX_TRIES) continue;
          this.#running.delete(streamId);
          listener.onFailure(new ApiError(reason || "the server closed the connection"));
        }
        if (this.#running.size > 0) void this.#connect();
      };
    });
  }

  #receive(message: ServerMessage): void {
    const streamId = message.stream_id ?? "";
    const running = this.#running.get(streamId);
    if (running === undefined) return;
    if (message.type === "error") {
      this.#running.delete(streamId);
      running.listener.onFailure(ApiError.of(message.status, message.error));
      return;
    }
    if (message.sequence_number <= running.lastEvent) return;
    running.lastEvent = message.sequence_number;
    running.numTries = 0;
    if (message.type === "response.created") running.responseId = message.response.id;
    if (isFinal(message)) this.#running.delete(streamId);
    running.listener.onEvent(message);
  }

  #failAll(error: ApiError): void {
    const all = [...this.#running.values()];
    this.#running.clear();
    for (const { listener } of all) listener.onFailure(error);
  }
}

function percentEncoded(key: string): string {
  return encodeURIComponent(key).replace(/[()]/g, (char) => `%${char.charCodeAt(0).toString(16)}`);
}
