/**
 * The composition root: config → model → engine → generator → application. The one place where the
 * parts meet, and where clock, random source and ids are chosen. A command takes only the parts
 * that it needs.
 */
import { randomUUID } from "node:crypto";
import { programVersion } from "../config/process.ts";
import type { Config } from "../config/schema.ts";
import { Engine } from "../engine/engine.ts";
import type { EngineObserver } from "../engine/observer.ts";
import { DenseMambaError } from "../errors.ts";
import { Generator } from "../generation/generator.ts";
import { Grammars } from "../grammar/grammars.ts";
import { Metrics } from "../metrics/metrics.ts";
import type { Manifest } from "../model/artifact.ts";
import type { PrefixCache } from "../prefix/prefix-cache.ts";
import type { ModelRunner } from "../runtime/runner.ts";
import type { ServerDeps } from "../server/deps.ts";
import { IncomingData } from "../server/http/incoming-data.ts";
import { ConversationItems } from "../server/responses/conversation-items.ts";
import { Responses } from "../server/responses/responses.ts";
import type { ConversationSnapshot } from "../sessions/conversation.ts";
import type { StateStore } from "../sessions/stores/store.ts";
import { loadTokenizer } from "../tokenizer/load.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { type LoadedModel, type LoadOptions, loadModel } from "./load-model.ts";
import type { ServerLog } from "./log.ts";
import { loadedBytesOf, type SizedConfig } from "./machine.ts";
import type { ModelPool, PooledModel } from "./model-pool.ts";
import { observeEngine, observeSnapshots } from "./observers.ts";
import { loadPersonas } from "./personas.ts";
import { serverOptions } from "./server-options.ts";
import { openStores, retentionPolicy, type Stores } from "./stores.ts";

export const now = () => performance.now();
const nowMs = () => Date.now();
const newId = () => randomUUID().replaceAll("-", "");

const UNOBSERVED: EngineObserver = { onStep() {}, onSequenceEnd() {}, onStatus() {} };

export interface EngineParts {
  readonly observer?: EngineObserver;
  /** Put around every runner that is opened. */
  readonly wrapRunner?: (runner: ModelRunner) => ModelRunner;
  /** Opens a runner at the first request only. */
  readonly isAsleep?: boolean;
}

/** An engine that has started. */
export async function startEngine(
  config: Config,
  model: LoadedModel,
  { observer = UNOBSERVED, wrapRunner = (runner) => runner, isAsleep = false }: EngineParts = {},
): Promise<Engine> {
  const { maxBatch, maxQueue, prefillChunk, prefillStall } = config;
  const engine = new Engine({
    openRunner: async () => wrapRunner(await model.openRunner()),
    limits: { maxBatch, maxQueue, prefillChunk, maxStall: prefillStall },
    observer,
    now,
    random: Math.random,
  });
  if (isAsleep) engine.startAsleep(model.manifest);
  else await engine.start();
  return engine;
}

/** For commands that run one sequence: loads the model, and closes its engine after `use`. */
export async function withEngine(
  config: Config,
  { onProgress }: Pick<LoadOptions, "onProgress">,
  use: (engine: Engine, model: LoadedModel) => Promise<void>,
): Promise<void> {
  const model = await loadModel(config, { numSlots: 1, onProgress, note: () => undefined });
  const engine = await startEngine({ ...config, maxBatch: 1 }, model);
  try {
    await use(engine, model);
  } finally {
    await engine.close({ deadlineMs: 0 });
  }
}

export function createGenerator(
  config: Config,
  model: LoadedModel,
  parts: {
    readonly engine: Engine;
    readonly tokenizer: Tokenizer;
    readonly store: StateStore;
    readonly unstored?: StateStore;
    readonly prefixCache?: PrefixCache;
    readonly grammars?: Grammars;
    readonly personas?: ReadonlyMap<string, ConversationSnapshot>;
  },
): Generator {
  const { maxPromptTokens, maxOutputTokens, maxAnswerTokens, prefixScope, reasoning, toolCallParser } = config;
  return new Generator({
    ...parts,
    prefixScope: prefixScope === "key" ? "owner" : "all",
    manifest: model.manifest,
    limits: { maxPromptTokens, maxOutputTokens, maxAnswerTokens },
    reasoning,
    toolCallParser,
    retention: retentionPolicy(config),
    stateSecret: config.stateSecret,
    newId,
    nowMs,
  });
}

/** One model. */
export interface Service {
  readonly deps: ServerDeps;
  readonly metrics: Metrics;
  readonly responses: Responses;
  readonly generator: Generator;
  readonly engine: Engine;
  readonly stores: Stores;
  /** If it is one of several. */
  readonly pooled: PooledModel | undefined;
}

export interface ServiceParts {
  readonly tokenizer: Tokenizer;
  readonly logging: Pick<ServerLog, "log" | "numDropped">;
  /** Of a model that can be unloaded. */
  readonly pool?: ModelPool;
  /** The first of several models, with which this one shares the address. It is loaded later. */
  readonly first?: ServerDeps;
}

/** What a server listens with, but for the application. */
export async function createService(
  config: SizedConfig,
  model: LoadedModel,
  { tokenizer, logging, pool, first }: ServiceParts,
): Promise<Service> {
  const { log } = logging;
  const { manifest } = model;
  checkVocabulary(tokenizer, manifest);
  const [modelName = manifest.name, ...aliases] = config.modelName;
  const version = programVersion();
  const pooling = pool && { pooled: first === undefined ? ("first" as const) : ("other" as const) };
  const personas = await loadPersonas(config, manifest, { isOnly: pool === undefined, log, nowMs });
  const metrics = new Metrics({ modelName, manifest, version, now, ...pooling });
  const stores = await openStores(config, { manifest, log, onDamage: () => metrics.onDamage(), nowMs });
  const { conversations: store, unstored, prefixCache } = stores;
  const bytes = loadedBytesOf(manifest, config.maxBatch);
  const pooled = pool?.add({ name: modelName, bytes, observer: metrics });
  const openRunner = pooled ? () => pooled.open(model.openRunner) : model.openRunner;
  const engine = await startEngine(
    config,
    { ...model, openRunner },
    {
      observer: observeEngine(metrics, log),
      wrapRunner: (runner) => observeSnapshots(runner, metrics, now),
      isAsleep: first !== undefined,
    },
  ).catch(async (error) => {
    await stores.close();
    throw error;
  });
  if (pooled) pooled.engine = engine;
  metrics.watch({
    load: () => engine.load,
    store: stores.stats.conversations,
    ...(first === undefined && { droppedLogLines: () => logging.numDropped }),
    prefixes: stores.stats.prefixes,
  });
  // Made now, since its table of tokens takes a while.
  const grammars = new Grammars(tokenizer, { now, observer: metrics });
  const parts = { engine, tokenizer, store, unstored, grammars, personas, ...(prefixCache && { prefixCache }) };
  const generator = createGenerator(config, model, parts);
  const options = serverOptions(config);
  const deps: ServerDeps = {
    generator,
    engine,
    model: {
      name: modelName,
      aliases: [...new Set([...aliases, ...(pool ? [] : [manifest.name])])].filter((name) => name !== modelName),
      takesAnyName: config.anyModelName && first === undefined,
      manifest,
      loadedAtMs: nowMs(),
    },
    version,
    checkStates: stores.check,
    metrics,
    observer: metrics,
    log,
    draining: first?.draining ?? new AbortController(),
    stopping: first?.stopping ?? new AbortController(),
    options,
    incomingData: first?.incomingData ?? new IncomingData(options.maxIncomingBytes),
    newId,
    nowMs,
  };
  const conversations = new ConversationItems(first ?? deps);
  return { deps, metrics, responses: new Responses(deps, conversations), generator, engine, stores, pooled };
}

/**
 * @param preferred the one given with `--tokenizer`, or the model's own where it has one
 * @throws `invalid_checkpoint` if there is none: text cannot be read or written without it
 */
export async function requireTokenizer(config: Config, preferred: "given" | "own" = "given"): Promise<Tokenizer> {
  const folder = config.tokenizer ?? config.model;
  const own = preferred === "own" ? await loadTokenizer(config.model) : undefined;
  const tokenizer = own ?? (await loadTokenizer(folder));
  if (tokenizer !== undefined) return tokenizer;
  throw new DenseMambaError(
    "invalid_checkpoint",
    `${folder} has no tokenizer.json; use another one with --tokenizer (for an RWKV its rwkv_vocab_v20230424.txt), or score, inspect and compile without one`,
  );
}

/**
 * A model may have more ids than its tokenizer: padding, which is never sampled. If the tokenizer
 * has more, the two do not belong together.
 * @throws `invalid_checkpoint`
 */
export function checkVocabulary(tokenizer: Tokenizer, { name, sizes }: Manifest): void {
  const { vocabSize, maxPadding = sizes.vocabSize } = tokenizer;
  const [last, lastOfModel] = [vocabSize - 1, sizes.vocabSize - 1];
  if (sizes.vocabSize - vocabSize > maxPadding) {
    throw new DenseMambaError(
      "invalid_checkpoint",
      `the tokenizer of ${name} gives ids up to ${last}, and the model's vocabulary goes on to ${lastOfModel}; at most ${maxPadding} more are padding: its file may be cut off`,
    );
  }
  if (vocabSize <= sizes.vocabSize) return;
  throw new DenseMambaError(
    "invalid_checkpoint",
    `the tokenizer of ${name} gives ids up to ${last}, but the model's vocabulary ends at ${lastOfModel}`,
  );
}
