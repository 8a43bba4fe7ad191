/**
 * Opens the server: loads the model, or the first of several, and listens; and closes it in good
 * order.
 */
import { once } from "node:events";
import { createServer } from "node:net";
import { totalmem } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import type { CompileProgress } from "../compiler/compile.ts";
import { type Config, USUAL_KEEP_ALIVE_MS } from "../config/schema.ts";
import type { EngineStatus } from "../engine/observer.ts";
import type { Manifest } from "../model/artifact.ts";
import { LostDeviceError } from "../runtime/native/cuda-error.ts";
import type { Log, ServerDeps } from "../server/deps.ts";
import type { Listener } from "../server/listen.ts";
import type { ModelEntry, SeveralModels } from "../server/several-models.ts";
import type { TierStats } from "../sessions/stores/tier.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { Service } from "./compose.ts";
import { type LoadedModel, type LoadOptions, loadModel } from "./load-model.ts";
import type { ServerLog } from "./log.ts";
import {
  autoModelsBytes,
  bytesOf,
  loadedBytesOf,
  memoryLimit,
  requireMemory,
  type SizedConfig,
  slotBytesOf,
  withinMemory,
} from "./machine.ts";
import { isPooled, withModelNames } from "./model-names.ts";
import type { ModelPool } from "./model-pool.ts";

/**
 * Shares of the time to shut down: when the engine saves what still runs, so that the rest suffices
 * to store and report it.
 */
const SUSPEND_SHARE = 0.9;
/** When responses that no client reads any more are read, to be stored. */
const DRAIN_SHARE = 0.95;
/** After that time: to notify clients. */
const NOTIFY_GRACE_MS = 500;
/** And then for everything to end: a runtime or a disk that hangs must not hang the process. */
const END_GRACE_MS = 2000;

/**
 * Send buffer of each connection. A larger one would take megabytes of tokens that a client may
 * never read; this one still carries some megabytes a second over a round trip of 100 ms.
 */
const SEND_BUFFER_BYTES = 128 * 1024;

/** For the banner. */
export interface ReadyFacts {
  readonly modelName: string;
  readonly manifest: Manifest;
  readonly status: EngineStatus;
  readonly config: SizedConfig;
  /** The memory that this process may use, if that is less than the machine's. */
  readonly memoryLimitBytes?: number;
  /** Of the store of sessions and responses. */
  readonly tiers: readonly TierStats[];
  /** Served beside it. */
  readonly others: readonly Pick<ModelEntry, "name" | "state">[];
  readonly port: number;
  /** Since the process began. */
  readonly startupMs: number;
}

export interface OpenServerOptions {
  readonly logging: ServerLog;
  readonly onProgress: (progress: CompileProgress) => void;
}

export interface RunningServer {
  readonly facts: ReadyFacts;
  /** Resolves when this process cannot open a runner any more and has to be restarted. */
  readonly lost: Promise<LostDeviceError>;
  /** For requests and WebSockets from now on. There must be some, if there were some. */
  setApiKeys(keys: readonly string[]): void;
  /** From now on it is not ready, and still serves. */
  drain(): void;
  /** Accepts nothing new, lets running requests finish or stores them, then closes the stores. */
  close(): Promise<void>;
}

/** Loads the model, and listens. @throws what prevents it from starting */
export async function openServer(given: Config, { logging, onProgress }: OpenServerOptions): Promise<RunningServer> {
  const { log } = logging;
  const named = isPooled(given) ? await withModelNames(given) : given;
  const limitBytes = memoryLimit();
  const loadOptions = { numSlots: given.maxBatch, onProgress, note: (message: string) => log.info(message) };
  const loading = loadModel(named, {
    ...loadOptions,
    checkModel: (model) => requireMemory(named, { limitBytes, ...memoryOf(model, named) }),
  });
  // The first failure is thrown; if the other one follows, it must not go unhandled.
  loading.catch(() => undefined);
  // The runtime loads the model on another thread: meanwhile load the other half of the program.
  const [{ requireTokenizer }, { createApp }, { listen }] = await Promise.all([
    import("./compose.ts"),
    import("../server/app.ts"),
    import("../server/listen.ts"),
  ]);
  const tokenizer = await requireTokenizer(named);
  const { watch, lost } = watchForLoss();
  const model = watch(await loading);
  const parts = { model, tokenizer, limitBytes, logging, loadOptions, watch };
  const serving = await (isPooled(named) ? openSeveral(named, parts) : openSingle(named, parts));
  const { config, first, deps, models, services } = serving;
  const { responses } = first;
  const { host, port } = config;
  const app = createApp(deps, responses, models);
  const listener = await listen({ app, deps, responses, models, host, port }).catch(async (error) => {
    for (const { engine, stores } of services()) {
      await engine.close({ deadlineMs: 0 });
      await stores.close();
    }
    throw explainListenError(error, config);
  });
  await limitSending(listener, log);
  return {
    facts: {
      modelName: deps.model.name,
      manifest: model.manifest,
      status: first.engine.status,
      config,
      ...(limitBytes < totalmem() && { memoryLimitBytes: limitBytes }),
      tiers: first.stores.stats.conversations().tiers,
      others: models?.entries.slice(1) ?? [],
      port: listener.port,
      startupMs: performance.now(),
    },
    lost,
    setApiKeys(keys) {
      for (const service of services()) service.deps.options.apiKeys = keys;
    },
    drain: () => deps.draining.abort(),
    async close() {
      serving.pool?.close();
      await shutDown(services(), listener, config, log);
    },
  };
}

/** What is listened with. */
interface Serving {
  readonly config: SizedConfig;
  readonly first: Service;
  readonly deps: ServerDeps;
  readonly models?: SeveralModels;
  readonly services: () => readonly Service[];
  readonly pool?: ModelPool;
}

interface ServingParts {
  readonly model: LoadedModel;
  readonly tokenizer: Tokenizer;
  readonly limitBytes: number;
  readonly logging: ServerLog;
  readonly loadOptions: LoadOptions;
  readonly watch: (model: LoadedModel) => LoadedModel;
}

async function openSingle(given: Config, { model, tokenizer, limitBytes, logging }: ServingParts): Promise<Serving> {
  const { createService } = await import("./compose.ts");
  const config = withinMemory(given, { limitBytes, ...memoryOf(model, given) });
  const service = await createService(config, model, { tokenizer, logging });
  return { config, first: service, deps: service.deps, services: () => [service] };
}

function memoryOf(model: Pick<LoadedModel, "manifest" | "device">, { maxBatch }: Config) {
  return { modelBytes: bytesOf(model.manifest.files), slotBytes: slotBytesOf(model, maxBatch) };
}

/** @param given with names */
async function openSeveral(given: Config, parts: ServingParts): Promise<Serving> {
  const { model, tokenizer, limitBytes, logging, loadOptions, watch } = parts;
  const [{ openModels }, { ModelPool }] = await Promise.all([import("./models.ts"), import("./model-pool.ts")]);
  const { modelsBytes = "auto", keepAlive = USUAL_KEEP_ALIVE_MS } = given;
  const firstBytes = loadedBytesOf(model.manifest, given.maxBatch);
  // The first one is served even if it takes more than its share.
  const maxBytes = modelsBytes === "auto" ? Math.max(firstBytes, autoModelsBytes(limitBytes)) : modelsBytes;
  const pool = new ModelPool({ maxBytes, keepAliveMs: keepAlive, now: () => performance.now() });
  const config = withinMemory(given, { limitBytes, modelBytes: 0, slotBytes: maxBytes });
  const wrapModel = watch;
  return {
    config,
    pool,
    ...(await openModels(config, model, { ...loadOptions, tokenizer, logging, pool, wrapModel })),
  };
}

/** `lost` is that of `RunningServer`. */
function watchForLoss(): {
  readonly watch: (model: LoadedModel) => LoadedModel;
  readonly lost: Promise<LostDeviceError>;
} {
  let report = (_error: LostDeviceError) => {};
  const lost = new Promise<LostDeviceError>((resolve) => {
    report = resolve;
  });
  const watch = (model: LoadedModel) => ({
    ...model,
    async openRunner() {
      try {
        return await model.openRunner();
      } catch (error) {
        if (error instanceof LostDeviceError) report(error);
        throw error;
      }
    },
  });
  return { watch, lost };
}

/**
 * To be called first: pulling and loading a model may take minutes, and a port that is in use
 * should be reported before.
 * @throws the system's error, explained, if the server cannot listen on the address
 */
export async function checkAddress(config: Pick<Config, "host" | "port">): Promise<void> {
  const server = createServer().listen(config.port, config.host);
  try {
    await once(server, "listening");
  } catch (error) {
    throw explainListenError(error, config);
  }
  await new Promise((resolve) => server.close(resolve));
}

/** Optional: without it, clients that read nothing cost the server more memory. */
async function limitSending({ descriptor }: Listener, log: Log): Promise<void> {
  if (descriptor === undefined) return;
  let cause: unknown;
  try {
    const { limitSendBuffer } = await import("../runtime/native/libc.ts");
    if (limitSendBuffer(descriptor, SEND_BUFFER_BYTES)) return;
  } catch (error) {
    cause = error;
  }
  log.debug({ err: cause }, "cannot limit the send buffers of connections");
}

async function shutDown(
  services: readonly Service[],
  listener: Listener,
  { shutdownMs }: Config,
  log: Log,
): Promise<void> {
  const work = Promise.all([
    listener.close(shutdownMs + NOTIFY_GRACE_MS),
    ...services.map(({ engine }) => engine.close({ deadlineMs: shutdownMs * SUSPEND_SHARE })),
    ...services.map(({ generator }) => generator.drain({ graceMs: shutdownMs * DRAIN_SHARE })),
  ]);
  try {
    const hasEnded = await endsWithin(shutdownMs + END_GRACE_MS, work);
    if (!hasEnded) log.error({}, "some requests did not end in time");
  } finally {
    for (const { generator } of services) generator.close();
    const closed = Promise.all(services.map(({ stores }) => stores.close()));
    if (!(await endsWithin(END_GRACE_MS, closed))) log.error({}, "the stores could not be closed in time");
  }
}

/** @throws what `work` throws within that time */
async function endsWithin(ms: number, work: Promise<unknown>): Promise<boolean> {
  const timer = new AbortController();
  const isOver = delay(ms, false, { signal: timer.signal }).catch(() => false);
  try {
    return await Promise.race([work.then(() => true), isOver]);
  } finally {
    timer.abort();
  }
}

function explainListenError(error: unknown, { host, port }: Pick<Config, "host" | "port">): unknown {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const problems: Readonly<Record<string, string>> = {
    EADDRINUSE: `port ${port} on ${host} is in use; choose another with --port, or 0 for any free one`,
    EACCES: `port ${port} on ${host} needs privileges that this process does not have`,
    EADDRNOTAVAIL: `${host} is not an address of this machine`,
    ENOTFOUND: `${host} cannot be resolved`,
  };
  const problem = problems[code];
  return problem === undefined ? error : Object.assign(new Error(`${code}: ${problem}`, { cause: error }), { code });
}
