/**
 * The whole house on a real port: server, generation, engine and runtime over the default model.
 */
import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { ensureArtifact } from "../../src/compiler/artifact-cache.ts";
import { Engine, type EngineLimits } from "../../src/engine/engine.ts";
import { Generator } from "../../src/generation/generator.ts";
import type { StatePrecision } from "../../src/model/state.ts";
import { limitSendBuffer } from "../../src/runtime/native/libc.ts";
import { openRunner as openRunnerOf } from "../../src/runtime/open.ts";
import type { ModelRunner, RunnerOptions } from "../../src/runtime/runner.ts";
import { createApp } from "../../src/server/app.ts";
import type { ServerOptions } from "../../src/server/deps.ts";
import { listen } from "../../src/server/listen.ts";
import { Responses } from "../../src/server/responses/responses.ts";
import { MemoryStore } from "../../src/sessions/stores/memory-store.ts";
import type { StateStore } from "../../src/sessions/stores/store.ts";
import { loadTokenizer } from "../../src/tokenizer/load.ts";
import { createTestServer } from "./server-deps.ts";
import { SHARED_ARTIFACTS } from "./shared-artifacts.ts";
import { writeTokenizer } from "./tiny-tokenizers.ts";

export const DEFAULT_MODEL_DIR = path.join(import.meta.dirname, "../../models/densemamba-tales-4m");

/** Servers that share a store must not give out the same id. */
const newId = () => randomUUID().replaceAll("-", "");

/** As `serve` has it. */
const SEND_BUFFER_BYTES = 128 * 1024;
const STORE_BYTES = 64 * 1024 * 1024;

export interface RealServer {
  readonly engine: Engine;
  readonly responses: Responses;
  readonly store: StateStore;
  /** What is not to be stored. */
  readonly unstored: StateStore;
  readonly url: string;
  readonly port: number;
  /** Tokens that the engine has made so far, but for the first one of each sequence. */
  readonly numDecoded: number;
  close(): Promise<void>;
}

export interface RealServerOptions {
  /** By default the native runner. Called again after a fault. */
  readonly openRunner?: (options: RunnerOptions) => Promise<ModelRunner>;
  readonly limits?: EngineLimits;
  /** By default its own; two servers may share one. */
  readonly store?: StateStore;
  /** Another checkpoint, with the default model's tokenizer. */
  readonly modelDir?: string;
  /** Another tokenizer. */
  readonly tokenizerDir?: string;
  /** By default 2000. */
  readonly maxOutputTokens?: number;
  readonly statePrecision?: StatePrecision;
  readonly stateSecret?: string;
  readonly options?: Partial<ServerOptions>;
}

/** In f32, whose results do not depend on how many sequences run together. */
export async function startRealServer({
  openRunner = (options) => openRunnerOf("native", options),
  limits = { maxBatch: 4, maxQueue: 32, prefillChunk: 16 },
  store = new MemoryStore({ maxBytes: STORE_BYTES }),
  modelDir = DEFAULT_MODEL_DIR,
  tokenizerDir = DEFAULT_MODEL_DIR,
  maxOutputTokens = 2000,
  statePrecision = "auto",
  stateSecret,
  options = {},
}: RealServerOptions = {}): Promise<RealServer> {
  let numDecoded = 0;
  const target = { modelDir, precision: "f32", statePrecision } as const;
  const { dir, manifest } = await ensureArtifact({ ...target, cacheDir: SHARED_ARTIFACTS });
  const runnerOptions = { artifactDir: dir, numSlots: limits.maxBatch, numThreads: 1, device: "cpu" } as const;
  const engine = new Engine({
    openRunner: () => openRunner(runnerOptions),
    limits,
    observer: { onStep: ({ numDecodeTokens }) => (numDecoded += numDecodeTokens), onSequenceEnd() {}, onStatus() {} },
    now: () => performance.now(),
    random: Math.random,
  });
  await engine.start();
  const { deps } = createTestServer(options);
  const unstored = new MemoryStore({ maxBytes: STORE_BYTES });
  const generator = new Generator({
    engine,
    tokenizer: (await loadTokenizer(tokenizerDir))!,
    manifest,
    store,
    unstored,
    stateSecret,
    limits: { maxPromptTokens: 2000, maxOutputTokens },
    newId,
    nowMs: Date.now,
  });
  const realDeps = { ...deps, newId, generator, engine, model: { ...deps.model, manifest } };
  const responses = new Responses(realDeps);
  const app = createApp(realDeps, responses);
  const listener = await listen({ app, deps: realDeps, responses, host: "127.0.0.1", port: 0 });
  limitSendBuffer(listener.descriptor!, SEND_BUFFER_BYTES);
  return {
    engine,
    responses,
    store,
    unstored,
    port: listener.port,
    get numDecoded() {
      return numDecoded;
    },
    url: `http://127.0.0.1:${listener.port}`,
    async close() {
      await listener.close(0);
      await engine.close({ deadlineMs: 0 });
    },
  };
}

/**
 * The default model's tokenizer with its token for padding renamed, and a chat template.
 * @returns its folder
 */
export async function renameInTokenizer(padding: string, chatTemplate: string): Promise<string> {
  const read = (name: string) => readFile(path.join(DEFAULT_MODEL_DIR, name), "utf8");
  const text = (await read("tokenizer.json")).replaceAll('"<pad>"', JSON.stringify(padding));
  const { pad_token: _, ...config } = JSON.parse(await read("tokenizer_config.json"));
  return writeTokenizer({ json: text, config: { ...config, chat_template: chatTemplate } });
}

/** POSTs JSON. */
export function post(url: string, body: object, signal?: AbortSignal): Promise<Response> {
  return fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    ...(signal && { signal }),
  });
}
