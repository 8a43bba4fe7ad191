/**
 * What the server is given by the composition root: the generator, the engine's face, the model's name card, a logger,
 * clock and ids, and its options. Structural types: the server knows no engine, no runtime and no metrics backend.
 */
import type { EngineStatus } from "../engine/observer.ts";
import type { GenerationEvent, GenerationRequest } from "../generation/events.ts";
import type { Manifest } from "../model/artifact.ts";
import type { SessionInfo } from "../sessions/conversations.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { Receiving } from "./http/receiving.ts";
import type { JsonBounds } from "./openai/json-reader.ts";

export interface EngineLoad {
  /** Sequences in slots. */
  readonly numRunning: number;
}

export interface ServerDeps {
  readonly generator: TextGenerator;
  readonly engine: { readonly status: EngineStatus; readonly load: EngineLoad };
  readonly model: ServedModel;
  /** Whether kept states are still this server's alone. @throws `store_unavailable` if not */
  readonly checkStates: () => Promise<void>;
  readonly metrics: { render(): Promise<string>; readonly contentType: string };
  readonly observer?: TransportObserver;
  readonly log: Log;
  /** Aborted by the listener as it begins to close: from then on nothing new is taken. */
  readonly stopping: AbortController;
  readonly options: ServerOptions;
  /** Shared by the HTTP side and the WebSocket. */
  readonly receiving: Receiving;
  /** Unguessable, of [0-9a-z]: the tail of `cmpl-…`, `resp_…` and request ids. */
  readonly newId: () => string;
  /** Unix time in milliseconds. */
  readonly nowMs: () => number;
}

/** The face of `generation/generator.ts`. */
export interface TextGenerator {
  /** The first event, or the first rejection, tells whether the request was admitted. */
  generate(request: GenerationRequest): AsyncIterable<GenerationEvent>;
  readonly conversations: ConversationDirectory;
  readonly tokenizer: TextTokenizer;
}

/** What of the tokenizer the endpoints need. */
export type TextTokenizer = Pick<
  Tokenizer,
  "vocabSize" | "chatTemplate" | "specialTokens" | "encode" | "stream" | "idToToken" | "tokenText" | "tokenBytes"
>;

/** Every method takes the owner first: for anyone else what it names does not exist. */
export interface ConversationDirectory {
  /** @throws `session_exists`, `quota_exceeded` */
  createSession(owner: string, id?: string): Promise<SessionInfo>;
  /** The least recently used first. */
  listSessions(owner: string): Promise<readonly SessionInfo[]>;
  /** @throws `session_not_found` */
  inspectSession(owner: string, id: string): Promise<SessionInfo>;
  /** @throws `session_not_found`, `session_busy` */
  deleteSession(owner: string, id: string): Promise<void>;
  /** @throws `session_not_found`, `session_exists`, `quota_exceeded` */
  forkSession(owner: string, id: string, newId?: string): Promise<SessionInfo>;
  /** @throws `previous_response_not_found`, `session_exists`, `quota_exceeded` */
  forkResponse(owner: string, responseId: string, sessionId?: string): Promise<SessionInfo>;
  /** @throws `session_not_found`, `session_exists`, `session_busy` */
  renameSession(owner: string, id: string, newId: string): Promise<SessionInfo>;
  /** @throws `session_not_found` */
  exportSession(owner: string, id: string): Promise<Uint8Array>;
  /** @param bytes not to be changed afterwards. @throws `invalid_snapshot`, `session_exists`, `quota_exceeded` */
  importSession(owner: string, bytes: Uint8Array, id?: string): Promise<SessionInfo>;
  /** Keeps what is told of a response later. Replaces. @param record JSON-serialisable */
  saveRecord(owner: string, responseId: string, record: unknown): Promise<void>;
  /** @throws `response_not_found` */
  readRecord(owner: string, responseId: string): Promise<unknown>;
  /** @returns whether it was there */
  deleteUnstored(owner: string, id: string): Promise<boolean>;
  /** The record and the state. @throws `response_not_found` */
  deleteResponse(owner: string, id: string): Promise<void>;
}

export interface ServedModel {
  /** The `model` that requests name. */
  readonly name: string;
  /** Other names that are answered as well. */
  readonly aliases: readonly string[];
  readonly manifest: Manifest;
  readonly loadedAtMs: number;
}

/** Counts of requests and connections, for metrics. Called synchronously: be quick, never throw. */
export interface TransportObserver {
  /** `route` is a pattern such as `/v1/models/:id`, never a client's own path. A stream ends when its last byte is out. */
  onHttpRequest?(request: {
    readonly method: string;
    readonly route: string;
    readonly status: number;
    readonly durationMs: number;
  }): void;
  onWebSocketOpen?(): void;
  onWebSocketClose?(): void;
  /** One response more, or less, is being made while nobody reads it. */
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
  /** Bearer keys. None: every request is accepted, whatever its Authorization header says. */
  readonly apiKeys: readonly string[];
  /** Whether `/metrics` asks for a key too. `/health` and `/ready` never do. */
  readonly metricsNeedKey: boolean;
  /** Host names that requests may use besides this machine's own, or `*`; undefined: any, since the names are not known. */
  readonly allowedHosts: readonly string[] | undefined;
  /** Origins that browsers may call from, or `*`. None: no CORS headers, and no WebSocket from another origin. */
  readonly corsOrigins: readonly string[];
  /** Whether a request may bring its own `chat_template`: a template is a program, if one that runs in a sandbox. */
  readonly trustRequestTemplates: boolean;
  readonly heartbeatMs: number;
  /** A running stream is written to no more often, and less often where many run. 0: each token by itself. */
  readonly streamGapMs: number;
  /** A reader that takes nothing for so long loses its stream, and the slot is freed. */
  readonly stallTimeoutMs: number;
  readonly limits: RequestLimits;
  readonly webSocket: WebSocketOptions;
  /** Bodies and WebSocket messages that are not complete, all together. */
  readonly maxReceivingBytes: number;
  readonly resume: ResumeOptions;
  /** Whether other servers may be making responses whose records are found in the store. */
  readonly sharesStore: boolean;
  readonly timeouts: {
    readonly headersMs: number;
    /** To receive a whole request, not to answer it. */
    readonly requestMs: number;
    readonly keepAliveMs: number;
  };
  readonly maxHeaderBytes: number;
}

export interface RequestLimits {
  readonly maxBodyBytes: number;
  readonly maxPromptTokens: number;
  readonly maxOutputTokens: number;
  /** Prompts × best_of of one request. */
  readonly maxChoices: number;
  readonly maxStopStrings: number;
  readonly maxStopLength: number;
  /** Of a session that is imported: what may come beside the state, its tokens and texts. */
  readonly maxHistoryBytes: number;
  /** What a JSON body may hold, whatever its length: parsing and checking it block the event loop. */
  readonly json: JsonBounds;
}

/** What becomes of a response while nobody reads its events. */
export interface ResumeOptions {
  /** A stored response that lost its last reader goes on for so long, and is cancelled if none has come back. */
  readonly waitMs: number;
  /** It is held back once so much text waits for a reader. */
  readonly waitBytes: number;
  /** A response in the background needs no readers; it has so long to end. */
  readonly backgroundMs: number;
}

export interface WebSocketOptions {
  readonly maxConnections: number;
  readonly maxMessageBytes: number;
  /** How long a connection lasts. */
  readonly maxConnectionMs: number;
  /** Names of lanes that one connection may use; the one without a name is not counted. */
  readonly maxLanes: number;
  /** Responses that run at once on one connection. */
  readonly maxInFlight: number;
  /** Messages of one connection that wait for those before them; all of them together within `maxMessageBytes`. */
  readonly maxQueued: number;
  /** Responses with `store: false` that a lane can continue from. */
  readonly maxUnstoredPerLane: number;
  readonly pingIntervalMs: number;
  /** Generation is not read further while more than `highWaterBytes` are unsent, until less than `lowWaterBytes` are. */
  readonly highWaterBytes: number;
  readonly lowWaterBytes: number;
}
