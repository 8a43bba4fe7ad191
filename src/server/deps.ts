/**
 * What the composition root gives to the server: generator, engine status, model, logger, clock,
 * ids and options. The types are structural: the server knows no engine, no runtime and no metrics
 * backend. Also hono's types as they are used here.
 */
import type { HttpBindings } from "@hono/node-server";
import type { Context, Hono, MiddlewareHandler } from "hono";
import type { EngineLoad } from "../engine/admitted-sequences.ts";
import type { EngineStatus } from "../engine/observer.ts";
import type {
  AcceptedPrompt,
  Embeddings,
  EmbedRequest,
  GenerationEvent,
  GenerationRequest,
  GenerationUsage,
  PromptRequest,
  ScoredContinuations,
  ScoreRequest,
} from "../generation/events.ts";
import type { Manifest } from "../model/artifact.ts";
import type { Conversations } from "../sessions/conversations.ts";
import type { Personas } from "../sessions/personas.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { IncomingData } from "./http/incoming-data.ts";

export interface AppEnv {
  /** Node's are absent if the app runs without its HTTP server, as in `app.request`. */
  Bindings: Partial<HttpBindings> & {
    /** A body that has been read already. */
    json?: unknown;
    /** Of an app that has passed the request to another one. */
    outer?: Context<AppEnv>;
  };
  Variables: {
    requestId: string;
    /** Whose sessions and responses the request may name; set by the key check. */
    owner: string;
    /** Set by endpoints that generate, for the access log. */
    usage: GenerationUsage | undefined;
    /** Of an answer that is an error, or of a stream that ended with one. */
    errorCode: string | undefined;
    /** Set if another app has answered. */
    answered: { readonly route: string; readonly observer: TransportObserver | undefined } | undefined;
  };
}

export type App = Hono<AppEnv>;
export type AppContext = Context<AppEnv>;
export type AppMiddleware = MiddlewareHandler<AppEnv>;

/** What the server reads of the engine. */
export interface EngineState {
  readonly status: EngineStatus;
  readonly load: Pick<EngineLoad, "numRunning" | "numWaiting">;
}

export interface ServerDeps {
  readonly generator: TextGenerator;
  readonly engine: EngineState;
  readonly model: ServedModel;
  /** Of this program. */
  readonly version: string;
  /**
   * Whether this server still owns its store, and can use it where it must.
   * @throws `store_unavailable` if not
   */
  readonly checkStates: () => Promise<void>;
  readonly metrics: { render(): Promise<string>; readonly contentType: string };
  readonly observer?: TransportObserver;
  readonly log: Log;
  /** Aborted when the server is to stop, perhaps some time before it does: it is not ready. */
  readonly draining: AbortController;
  /** The listener aborts it when it begins to close: from then on nothing new is accepted. */
  readonly stopping: AbortController;
  readonly options: ServerOptions;
  /** Shared by the HTTP side and the WebSocket. */
  readonly incomingData: IncomingData;
  /** Unguessable, of [0-9a-z]: the tail of `cmpl-…`, `resp_…` and request ids. */
  readonly newId: () => string;
  /** Unix time in milliseconds. */
  readonly nowMs: () => number;
}

/** `generation/generator.ts`, or a fake. */
export interface TextGenerator {
  /** The first event, or a rejection instead of it, shows whether the request was admitted. */
  generate(request: GenerationRequest): AsyncIterable<GenerationEvent>;
  /** What a request would read as its prompt. */
  encodePrompt(request: PromptRequest): Promise<AcceptedPrompt>;
  /** How likely each continuation of a prompt is. */
  score(request: ScoreRequest): Promise<ScoredContinuations>;
  /** A vector for each prompt. */
  embed(request: EmbedRequest): Promise<Embeddings>;
  readonly conversations: ConversationDirectory;
  readonly tokenizer: TextTokenizer;
}

export type TextTokenizer = Pick<
  Tokenizer,
  | "vocabSize"
  | "className"
  | "chatTemplate"
  | "specialTokens"
  | "encode"
  | "stream"
  | "idToToken"
  | "tokenText"
  | "tokenBytes"
>;

/** To any owner but its own, a session or response does not exist. */
export type ConversationDirectory = Pick<
  Conversations,
  | "createSession"
  | "listSessions"
  | "inspectSession"
  | "deleteSession"
  | "forkSession"
  | "forkResponse"
  | "renameSession"
  | "exportSession"
  | "importSession"
  | "forkPersona"
  | "listCheckpoints"
  | "nameCheckpoint"
  | "rollBackSession"
  | "lock"
  | "saveRecord"
  | "readRecord"
  | "deleteUnstored"
  | "deleteResponse"
> & { readonly personas: Pick<Personas, "list" | "inspect" | "put" | "delete"> };

export interface ServedModel {
  /** The `model` that requests name. */
  readonly name: string;
  /** Other names for it. */
  readonly aliases: readonly string[];
  /** Whether requests may name any other model too, and mean this one. */
  readonly takesAnyName: boolean;
  readonly manifest: Manifest;
  readonly loadedAtMs: number;
}

/** Counts of requests and connections, for metrics. Called synchronously: be quick, never throw. */
export interface TransportObserver {
  /**
   * `route` is a pattern such as `/v1/models/:id`, never a client's own path. A stream ends when
   * its last byte is out.
   */
  onHttpRequest?(request: {
    readonly method: string;
    readonly route: string;
    readonly status: number;
    readonly durationMs: number;
  }): void;
  onWebSocketOpen?(): void;
  onWebSocketClose?(): void;
  /** The number of responses that run without a client changes. */
  onUnattended?(change: 1 | -1): void;
}

/** pino's shape: fields first, then the message. */
export interface Log {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface ServerOptions {
  /**
   * Bearer keys, which may be replaced while the server runs. None, which stays so: every request is
   * accepted, whatever its Authorization header says.
   */
  apiKeys: readonly string[];
  /** Whether `/metrics` needs a key too. `/health` and `/ready` never do. */
  readonly metricsNeedKey: boolean;
  /**
   * Host names that requests may use besides this machine's own, or `*`; undefined: any, since the
   * names are not known.
   */
  readonly allowedHosts: readonly string[] | undefined;
  /**
   * Origins that browsers may call from, or `*`. None: no CORS headers, and no WebSocket from
   * another origin.
   */
  readonly corsOrigins: readonly string[];
  /**
   * The path under which a proxy serves this server, such as `/llm`, whether the proxy strips it or
   * not; "" for none.
   */
  readonly rootPath: string;
  /**
   * Whether a request may bring its own `chat_template`: a template is a program, if one that runs
   * in a sandbox.
   */
  readonly trustRequestTemplates: boolean;
  readonly heartbeatMs: number;
  /** Shortest time between two writes to a stream; longer if many run. 0: each token by itself. */
  readonly streamGapMs: number;
  /** A client that reads nothing for this long loses its stream and its slot. */
  readonly stallTimeoutMs: number;
  readonly limits: RequestLimits;
  readonly webSocket: WebSocketOptions;
  /** Of all incomplete bodies and WebSocket messages together. */
  readonly maxIncomingBytes: number;
  readonly resume: ResumeOptions;
  /** Whether other servers may be running responses whose records are in the store. */
  readonly sharesStore: boolean;
  /** Whether a response that is to be stored is refused if it could not be shared. */
  readonly storeRequired: boolean;
  readonly timeouts: {
    readonly headersMs: number;
    /** To receive a whole request, not to answer it. */
    readonly requestMs: number;
    readonly keepAliveMs: number;
  };
  readonly maxHeaderBytes: number;
}

/** What a JSON body may hold, whatever its length: parsing and checking it block the event loop. */
export interface JsonBounds {
  /** Of objects and lists within each other. */
  readonly maxDepth: number;
  /** Values in lists, objects and lists, all together. */
  readonly maxItems: number;
  /** Strings, including the names of members: JSON.parse looks up each short one in a table. */
  readonly maxStrings: number;
  /**
   * Members of objects, all together: each may have a new name, which costs more than its value.
   */
  readonly maxMembers: number;
}

export interface RequestLimits {
  readonly maxBodyBytes: number;
  readonly maxPromptTokens: number;
  readonly maxOutputTokens: number;
  /** Prompts × best_of of one request. */
  readonly maxChoices: number;
  readonly maxStopStrings: number;
  readonly maxStopLength: number;
  /** Of an imported session: its tokens and texts, beside the state. */
  readonly maxHistoryBytes: number;
  /** Of its checkpoints' states. */
  readonly maxCheckpointBytes: number;
  readonly json: JsonBounds;
}

/** What happens to a response while no client reads its events. */
export interface ResumeOptions {
  /** How long a stored response runs on after its last client has gone; then it is cancelled. */
  readonly waitMs: number;
  /** It is paused once this much text waits for a client. */
  readonly waitBytes: number;
  /** How long a background response, which needs no client, may take. */
  readonly backgroundMs: number;
}

export interface WebSocketOptions {
  readonly maxConnections: number;
  readonly maxMessageBytes: number;
  /** How long a connection lasts. */
  readonly maxConnectionMs: number;
  /** Stream ids that one connection may use; the stream without an id is not counted. */
  readonly maxStreams: number;
  /** Responses that run at once on one connection. */
  readonly maxInFlight: number;
  /**
   * Messages of one connection that wait for earlier ones; together they have at most
   * `maxMessageBytes`.
   */
  readonly maxQueued: number;
  /** Responses with `store: false` that a stream can continue from. */
  readonly maxUnstoredPerStream: number;
  readonly pingIntervalMs: number;
  /**
   * Generation pauses while more than `highWaterBytes` are unsent, until fewer than `lowWaterBytes`
   * are.
   */
  readonly highWaterBytes: number;
  readonly lowWaterBytes: number;
}
