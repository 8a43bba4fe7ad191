/**
 * Runs the server: loads the model, listens, says that it is ready, and shuts down in good order.
 */
import { once } from "node:events";
import { createServer } from "node:net";
import { totalmem } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import type { CompileProgress } from "../compiler/compile.ts";
import { readNpmScript, readServiceLinks } from "../config/process.ts";
import type { Config } from "../config/schema.ts";
import type { EngineStatus } from "../engine/observer.ts";
import type { Manifest } from "../model/artifact.ts";
import { LostDeviceError } from "../runtime/native/cuda-error.ts";
import type { Log } from "../server/deps.ts";
import type { Listener } from "../server/listen.ts";
import type { TierStats } from "../sessions/stores/tier.ts";
import type { Service } from "./compose.ts";
import { type LoadedModel, loadModel } from "./load-model.ts";
import type { ServerLog } from "./log.ts";
import { memoryLimit, type SizedConfig, slotBytesOf, withinMemory } from "./machine.ts";
import { npmFacts, type SignalSource, untilNpmEnds, untilSignal } from "./shutdown.ts";

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
  readonly port: number;
  /** Since the process began. */
  readonly startupMs: number;
}

export interface RunServerOptions {
  readonly logging: ServerLog;
  readonly signals: SignalSource;
  readonly onProgress: (progress: CompileProgress) => void;
  readonly onReady: (facts: ReadyFacts) => void;
}

/**
 * Resolves when the server has closed after a signal.
 * @throws what prevents it from starting, or a device that is lost
 */
export async function runServer(given: Config, options: RunServerOptions): Promise<void> {
  const { logging, signals, onProgress, onReady } = options;
  const { log } = logging;
  const stopped = Promise.race([untilSignal(signals), untilNpmEnds(npmFacts(readNpmScript()))]);
  // A bug in one request must not end all the others.
  signals.on("unhandledRejection", (reason) => {
    log.error({ error: reason instanceof Error ? reason.stack : String(reason) }, "unhandled rejection");
  });
  const variables = readServiceLinks();
  if (variables.length > 0) log.info({ variables }, "ignored environment variables that describe a service");

  const loading = loadModel(given, { numSlots: given.maxBatch, onProgress, note: (message) => log.info(message) });
  // The first failure is thrown; if the other one follows, it must not go unhandled.
  loading.catch(() => undefined);
  // The runtime loads the model on another thread: meanwhile load the other half of the program.
  const [{ createService, requireTokenizer }, { listen }] = await Promise.all([
    import("./compose.ts"),
    import("../server/listen.ts"),
  ]);
  const tokenizer = await requireTokenizer(given);
  const { model, lost } = watchForLoss(await loading);
  const limitBytes = memoryLimit();
  const config = withinMemory(given, {
    limitBytes,
    modelBytes: model.manifest.files.reduce((sum, { bytes }) => sum + bytes, 0),
    slotBytes: slotBytesOf(model, given.maxBatch),
  });
  const service = await createService(config, model, { tokenizer, logging });
  const { app, deps, responses, engine, stores } = service;
  const { host, port } = config;
  const listener = await listen({ app, deps, responses, host, port }).catch(async (error) => {
    await engine.close({ deadlineMs: 0 });
    await stores.close();
    throw explainListenError(error, config);
  });
  await limitSending(listener, log);
  onReady({
    modelName: deps.model.name,
    manifest: model.manifest,
    status: engine.status,
    config,
    ...(limitBytes < totalmem() && { memoryLimitBytes: limitBytes }),
    tiers: stores.stats.conversations().tiers,
    port: listener.port,
    startupMs: performance.now(),
  });

  const reason = await Promise.race([stopped, lost]);
  const isLost = reason instanceof LostDeviceError;
  if (isLost) log.error({ error: reason.message }, "this process has lost the device and ends, to be started again");
  else log.info({ signal: reason, withinMs: config.shutdownMs }, "shutting down");
  await shutDown(service, listener, config, log);
  log.info("closed");
  if (isLost) throw reason;
}

/** `lost` resolves when this process cannot open a runner any more and has to be restarted. */
function watchForLoss(model: LoadedModel): { readonly model: LoadedModel; readonly lost: Promise<LostDeviceError> } {
  let report = (_error: LostDeviceError) => {};
  const lost = new Promise<LostDeviceError>((resolve) => {
    report = resolve;
  });
  const openRunner = async () => {
    try {
      return await model.openRunner();
    } catch (error) {
      if (error instanceof LostDeviceError) report(error);
      throw error;
    }
  };
  return { model: { ...model, openRunner }, lost };
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

/** Accepts nothing new, lets running requests finish or stores them, then closes the stores. */
async function shutDown(service: Service, listener: Listener, { shutdownMs }: Config, log: Log): Promise<void> {
  const { engine, generator, stores } = service;
  const work = Promise.all([
    listener.close(shutdownMs + NOTIFY_GRACE_MS),
    engine.close({ deadlineMs: shutdownMs * SUSPEND_SHARE }),
    generator.drain({ graceMs: shutdownMs * DRAIN_SHARE }),
  ]);
  try {
    const hasEnded = await endsWithin(shutdownMs + END_GRACE_MS, work);
    if (!hasEnded) log.error({}, "some requests did not end in time");
  } finally {
    generator.close();
    if (!(await endsWithin(END_GRACE_MS, stores.close()))) log.error({}, "the stores could not be closed in time");
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
