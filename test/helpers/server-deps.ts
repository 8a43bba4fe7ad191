/**
 * The server's dependencies around a `FakeGenerator`: fixed ids and clock, a log that keeps its
 * lines.
 */

import { serverOptions } from "../../src/app/server-options.ts";
import { loadConfig } from "../../src/config/load.ts";
import { DenseMambaError } from "../../src/errors.ts";
import { createApp } from "../../src/server/app.ts";
import type { App, EngineState, ServerDeps, ServerOptions } from "../../src/server/deps.ts";
import { IncomingData } from "../../src/server/http/incoming-data.ts";
import { Responses } from "../../src/server/responses/responses.ts";
import { FAKE_VOCAB_SIZE, FakeGenerator } from "./fake-generator.ts";

export const FAKE_MODEL = "fake-4m";
/** Those of a server that is started without any flags, but for a store of its own. */
export const DEFAULT_SERVER_OPTIONS: ServerOptions = {
  ...serverOptions(loadConfig({ flags: {}, env: {} })),
  sharesStore: true,
};
export const NOW_MS = 1_750_000_000_000;

export interface LogLine {
  readonly level: "debug" | "info" | "warn" | "error";
  readonly fields: Record<string, unknown>;
  readonly message: string;
}

export interface TestServer {
  readonly app: App;
  readonly deps: ServerDeps;
  readonly responses: Responses;
  readonly generator: FakeGenerator;
  readonly engine: { -readonly [Key in keyof EngineState]: EngineState[Key] };
  readonly logLines: LogLine[];
  /** What the server takes for now. */
  readonly clock: { nowMs: number };
  /** What the transport observer was told, in order. */
  readonly observed: unknown[];
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<Response>;
}

export function createTestServer(options: Partial<ServerOptions> = {}): TestServer {
  const generator = new FakeGenerator();
  const engine: TestServer["engine"] = {
    status: { state: "ready", runner: "fake runner" },
    load: { numRunning: 1, numWaiting: 0 },
  };
  const logLines: LogLine[] = [];
  const observed: unknown[] = [];
  const logAt = (level: LogLine["level"]) => (fields: object, message: string) => {
    logLines.push({ level, fields: { ...fields }, message });
  };
  const allOptions = { ...DEFAULT_SERVER_OPTIONS, ...options };
  const clock = { nowMs: NOW_MS };
  let lastId = 0;
  const deps: ServerDeps = {
    generator,
    engine,
    model: {
      name: FAKE_MODEL,
      aliases: ["default"],
      takesAnyName: false,
      loadedAtMs: NOW_MS,
      manifest: {
        formatVersion: 1,
        compilerVersion: "0",
        modelHash: "0123456789abcdef",
        name: FAKE_MODEL,
        family: "dense_mamba",
        precision: "int8",
        sizes: { vocabSize: FAKE_VOCAB_SIZE, hiddenSize: 8, numLayers: 2, denseLayers: 1 },
        numParameters: 4_000_000,
        bosTokenId: null,
        eosTokenIds: [0],
        state: [{ name: "ssm.0", shape: [16, 64] }],
        graph: "model.onnx",
        files: [],
      },
    },
    version: "1.2.3",
    checkStates: async () => {},
    metrics: { render: async () => "# fake metrics\n", contentType: "text/plain; version=0.0.4; charset=utf-8" },
    observer: {
      onHttpRequest: (request) => observed.push({ http: request }),
      onWebSocketOpen: () => observed.push("websocket open"),
      onWebSocketClose: () => observed.push("websocket close"),
      onUnattended: (change) => observed.push({ unattended: change }),
    },
    log: { debug: logAt("debug"), info: logAt("info"), warn: logAt("warn"), error: logAt("error") },
    draining: new AbortController(),
    stopping: new AbortController(),
    options: allOptions,
    incomingData: new IncomingData(allOptions.maxIncomingBytes),
    newId: () => String(++lastId).padStart(8, "0"),
    nowMs: () => clock.nowMs,
  };
  const responses = new Responses(deps);
  const app = createApp(deps, responses);
  const post = async (path: string, body: unknown, headers: Record<string, string> = {}) =>
    app.request(path, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: typeof body === "string" ? body : JSON.stringify(body),
    });
  return { app, deps, responses, clock, generator, engine, logLines, observed, post };
}

/** The JSON of each `data:` line; `[DONE]` as that string. */
export function sseData(text: string): unknown[] {
  const data: unknown[] = [];
  for (const line of text.split("\n")) {
    if (line.startsWith("data: ")) data.push(line === "data: [DONE]" ? "[DONE]" : JSON.parse(line.slice(6)));
  }
  return data;
}

export function runtimeFault(): DenseMambaError {
  return new DenseMambaError("runtime_fault", "the runtime failed: injected");
}
