/**
 * The composition root: config → model → engine → generator → application. The one place where the parts meet; clock,
 * random source and ids are chosen here. Each command takes as much of the house as it needs.
 */
import { randomUUID } from "node:crypto";
import type { Config } from "../config.ts";
import { Engine } from "../engine/engine.ts";
import type { EngineObserver } from "../engine/observer.ts";
import { DenseMambaError } from "../errors.ts";
import { Generator } from "../generation/generator.ts";
import { Metrics } from "../metrics/metrics.ts";
import type { Manifest } from "../model/artifact.ts";
import type { PrefixCache } from "../prefix/prefix-cache.ts";
import type { ModelRunner } from "../runtime/runner.ts";
import { createApp } from "../server/app.ts";
import type { App } from "../server/context.ts";
import type { Log, ServerDeps } from "../server/deps.ts";
import { Receiving } from "../server/receiving.ts";
import { Responses } from "../server/responses/responses.ts";
import type { StateStore } from "../sessions/stores/store.ts";
import { loadTokenizer } from "../tokenizer/load.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { type KeptStates, keepingPolicy, openKeptStates } from "./kept-states.ts";
import type { LoadedModel } from "./load-model.ts";
import type { ServerLog } from "./log.ts";
import type { SizedConfig } from "./memory.ts";
import { observeSnapshots } from "./observed-runner.ts";
import { serverOptions } from "./server-options.ts";
import { programVersion } from "./version.ts";

const now = () => performance.now();
const nowMs = () => Date.now();
const newId = () => randomUUID().replaceAll("-", "");

const UNOBSERVED: EngineObserver = { onStep() {}, onSequenceEnd() {}, onStatus() {} };

export interface EngineParts {
  readonly observer?: EngineObserver;
  /** Put around every runner that is opened. */
  readonly wrapRunner?: (runner: ModelRunner) => ModelRunner;
}

/** An engine that has started. */
export async function startEngine(
  config: Config,
  model: LoadedModel,
  { observer = UNOBSERVED, wrapRunner = (runner) => runner }: EngineParts = {},
): Promise<Engine> {
  const { maxBatch, maxQueue, prefillChunk, prefillStall } = config;
  const engine = new Engine({
    openRunner: async () => wrapRunner(await model.openRunner()),
    limits: { maxBatch, maxQueue, prefillChunk, maxStall: prefillStall },
    observer,
    now,
    random: Math.random,
  });
  await engine.start();
  return engine;
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
  },
): Generator {
  const { maxPromptTokens, maxOutputTokens, maxAnswerTokens, prefixScope } = config;
  return new Generator({
    ...parts,
    prefixScope: prefixScope === "key" ? "owner" : "all",
    manifest: model.manifest,
    limits: { maxPromptTokens, maxOutputTokens, maxAnswerTokens },
    keeping: keepingPolicy(config),
    newId,
    nowMs,
  });
}

export interface Service {
  readonly app: App;
  readonly deps: ServerDeps;
  readonly responses: Responses;
  readonly generator: Generator;
  readonly engine: Engine;
  readonly states: KeptStates;
}

/** Everything that `serve` listens with. */
export async function createService(
  config: SizedConfig,
  model: LoadedModel,
  { tokenizer, logging }: { readonly tokenizer: Tokenizer; readonly logging: Pick<ServerLog, "log" | "numDropped"> },
): Promise<Service> {
  const { log } = logging;
  const { manifest } = model;
  checkFit(tokenizer, manifest);
  const modelName = config.modelName ?? manifest.name;
  const metrics = new Metrics({ modelName, manifest, version: programVersion(), now });
  const states = await openKeptStates(config, { manifest, log, onDamage: () => metrics.onDamage(), nowMs });
  const { conversations: store, unstored, prefixes: prefixCache } = states;
  const engine = await startEngine(config, model, {
    observer: observeAll(metrics, logStatus(log)),
    wrapRunner: (runner) => observeSnapshots(runner, metrics, now),
  }).catch(async (error) => {
    await states.close();
    throw error;
  });
  metrics.watch({
    load: () => engine.load,
    store: states.stats.conversations,
    droppedLogLines: () => logging.numDropped,
    prefixes: states.stats.prefixes,
  });
  const parts = { engine, tokenizer, store, unstored, ...(prefixCache && { prefixCache }) };
  const generator = createGenerator(config, model, parts);
  const options = serverOptions(config);
  const deps: ServerDeps = {
    generator,
    engine,
    model: {
      name: modelName,
      aliases: modelName === manifest.name ? [] : [manifest.name],
      manifest,
      loadedAtMs: nowMs(),
    },
    checkStates: states.check,
    metrics,
    observer: metrics,
    log,
    stopping: new AbortController(),
    options,
    receiving: new Receiving(options.maxReceivingBytes),
    newId,
    nowMs,
  };
  const responses = new Responses(deps);
  return { app: createApp(deps, responses), deps, responses, generator, engine, states };
}

/** @throws `invalid_checkpoint` if the model has none: text cannot be read or written without it. */
export async function requireTokenizer(config: Config): Promise<Tokenizer> {
  const folder = config.tokenizer ?? config.model;
  const tokenizer = await loadTokenizer(folder);
  if (tokenizer !== undefined) return tokenizer;
  throw new DenseMambaError(
    "invalid_checkpoint",
    `${folder} has no tokenizer.json; --tokenizer names another's, and score, inspect and compile work without one`,
  );
}

/**
 * A model may have more ids than its tokenizer: padding, which is never sampled. The other way round they do not belong
 * together.
 * @throws `invalid_checkpoint`
 */
export function checkFit(tokenizer: Tokenizer, { name, sizes }: Manifest): void {
  if (tokenizer.vocabSize <= sizes.vocabSize) return;
  throw new DenseMambaError(
    "invalid_checkpoint",
    `the tokenizer of ${name} gives ids up to ${tokenizer.vocabSize - 1}, but the model's vocabulary ends at ${sizes.vocabSize - 1}`,
  );
}

/** Faults and recoveries belong in the log; steps and ends are the metrics' business. */
function logStatus(log: Log): Pick<EngineObserver, "onStatus"> {
  let recovering = false;
  return {
    onStatus(status) {
      if (status.state === "recovering") log.error({ error: status.error }, "engine recovering");
      if (status.state === "ready" && recovering) log.warn({ runner: status.runner }, "engine ready again");
      recovering = status.state === "recovering";
    },
  };
}

function observeAll(metrics: EngineObserver, statusLog: Pick<EngineObserver, "onStatus">): EngineObserver {
  return {
    onStep: (step) => metrics.onStep(step),
    onSequenceEnd: (end) => metrics.onSequenceEnd(end),
    onStatus(status) {
      metrics.onStatus(status);
      statusLog.onStatus(status);
    },
  };
}
