/** `densemamba serve`: loads the model, listens, says so, and ends in an orderly way on a signal. */
import { once } from "node:events";
import { createServer } from "node:net";
import { totalmem } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import { type Config, readNpmScript, readServiceLinks } from "../config.ts";
import { stateBytes } from "../model/state.ts";
import { LostDeviceError } from "../runtime/native/cuda-error.ts";
import type { Log } from "../server/deps.ts";
import type { Listener } from "../server/listen.ts";
import { readyBanner } from "./banner.ts";
import type { Service } from "./compose.ts";
import { type LoadedModel, loadModel } from "./load-model.ts";
import { openLog, type ServerLog } from "./log.ts";
import { memoryLimit, withinMemory } from "./memory.ts";
import { thisProcess, untilNpmHasGone } from "./npm-parent.ts";
import { showProgress } from "./progress.ts";
import { type SignalSource, untilSignal } from "./shutdown.ts";
import type { Terminal } from "./terminal.ts";
import { programVersion } from "./version.ts";

/** Of the time to shut down: when the engine parks what still runs, so that its end can be told and kept in what is left. */
const PARK_SHARE = 0.9;
/** And when what nobody reads any more is read to be kept. */
const KEEP_SHARE = 0.95;
/** Beyond it: for clients to be told of that end. */
const TELL_GRACE_MS = 500;
/** And beyond that: for what has been told to end. A runtime or a disk that hangs must not hang the process. */
const END_GRACE_MS = 2000;

/**
 * Send buffer of each connection. A larger one would take megabytes of tokens that a client may never read; this one still
 * carries some megabytes a second over a round trip of 100 ms.
 */
const SEND_BUFFER_BYTES = 128 * 1024;

/** Resolves when the server has closed after a signal. @throws what keeps it from starting. */
export async function serve(given: Config, terminal: Terminal, signals: SignalSource): Promise<void> {
  const logging = openLog(given.logLevel, terminal.stderr);
  // Output that cannot be written (a closed terminal, a full disk) is no reason to end.
  for (const stream of [terminal.stdout, terminal.stderr]) stream.removeAllListeners("error").on("error", () => {});
  try {
    await serveUntilSignal(given, terminal, signals, logging);
  } finally {
    await logging.close();
  }
}

async function serveUntilSignal(
  given: Config,
  terminal: Terminal,
  signals: SignalSource,
  logging: ServerLog,
): Promise<void> {
  const { log } = logging;
  const stopped = Promise.race([untilSignal(signals), untilNpmHasGone(thisProcess(readNpmScript()))]);
  // A bug in one request must not end everybody else's: it is told, and the server goes on.
  signals.on("unhandledRejection", (reason) => {
    log.error({ error: reason instanceof Error ? reason.stack : String(reason) }, "unhandled rejection");
  });
  const links = readServiceLinks();
  if (links.length > 0)
    log.info({ variables: links }, "ignored environment variables that describe a Kubernetes Service of the same name");
  const { host, port } = given;
  const loading = loadModel(given, {
    numSlots: given.maxBatch,
    onProgress: showProgress(terminal.stderr, () => performance.now()),
    note: (message) => log.info(message),
  });
  // Whatever fails first is told; the other's failure must not go unhandled meanwhile.
  loading.catch(() => undefined);
  // The runtime loads the model on another thread: time to load the other half of the program.
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
    slotBytes: given.maxBatch * stateBytes(model.manifest.state),
  });
  const service = await createService(config, model, { tokenizer, logging });
  const { app, deps, responses } = service;
  const listener = await listen({ app, deps, responses, host, port }).catch(async (error) => {
    await service.engine.close({ deadlineMs: 0 });
    await service.states.close();
    throw explainListenError(error, given);
  });
  await boundSending(listener, log);

  terminal.stdout.write(
    readyBanner({
      version: programVersion(),
      modelName: service.deps.model.name,
      manifest: model.manifest,
      status: service.engine.status,
      config,
      ...(limitBytes < totalmem() && { memoryLimitBytes: limitBytes }),
      tiers: service.states.stats.conversations().tiers,
      port: listener.port,
      // Since the process began.
      startupMs: performance.now(),
    }),
  );

  const reason = await Promise.race([stopped, lost]);
  const isLost = reason instanceof LostDeviceError;
  if (isLost)
    log.error({ error: reason.message }, "the device is lost to this process, which ends to be started again");
  else log.info({ signal: reason, withinMs: config.shutdownMs }, "shutting down");
  await end(service, listener, config, log);
  log.info("closed");
  if (isLost) throw reason;
}

/** `lost`: when no runner can be opened in this process any more. Whoever supervises it should start another. */
function watchForLoss(model: LoadedModel): { readonly model: LoadedModel; readonly lost: Promise<LostDeviceError> } {
  let tell = (_error: LostDeviceError) => {};
  const lost = new Promise<LostDeviceError>((resolve) => {
    tell = resolve;
  });
  const openRunner = async () => {
    try {
      return await model.openRunner();
    } catch (error) {
      if (error instanceof LostDeviceError) tell(error);
      throw error;
    }
  };
  return { model: { ...model, openRunner }, lost };
}

/**
 * To be called first: pulling and loading a model may take minutes, and a taken port should be reported before that.
 * @throws the system's error, explained, when the address can't be listened on now
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

/** Optional: without it clients that read nothing cost the server more. */
async function boundSending({ descriptor }: Listener, log: Log): Promise<void> {
  if (descriptor === undefined) return;
  try {
    const { limitSendBuffer } = await import("../runtime/native/send-buffer.ts");
    if (limitSendBuffer(descriptor, SEND_BUFFER_BYTES)) return;
    log.debug({}, "the send buffers of connections could not be limited");
  } catch (error) {
    log.debug({ err: error }, "the send buffers of connections could not be limited");
  }
}

/** Nothing new is taken; what runs ends or is parked; what it left is kept; then the stores are closed. */
async function end(service: Service, listener: Listener, { shutdownMs }: Config, log: Log): Promise<void> {
  const { engine, generator, states } = service;
  const work = Promise.all([
    listener.close(shutdownMs + TELL_GRACE_MS),
    engine.close({ deadlineMs: shutdownMs * PARK_SHARE }),
    generator.drain({ graceMs: shutdownMs * KEEP_SHARE }),
  ]);
  try {
    if (!(await endsWithin(shutdownMs + END_GRACE_MS, work))) log.error({}, "not everything ended; leaving it");
  } finally {
    generator.close();
    if (!(await endsWithin(END_GRACE_MS, states.close()))) log.error({}, "the stores could not be closed in time");
  }
}

/** @throws what the work throws within that time */
async function endsWithin(ms: number, work: Promise<unknown>): Promise<boolean> {
  const patience = new AbortController();
  const isOver = delay(ms, false, { signal: patience.signal }).catch(() => false);
  try {
    return await Promise.race([work.then(() => true), isOver]);
  } finally {
    patience.abort();
  }
}

function explainListenError(error: unknown, { host, port }: Pick<Config, "host" | "port">): unknown {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  const problems: Readonly<Record<string, string>> = {
    EADDRINUSE: `port ${port} on ${host} is taken; choose another with --port, or 0 for any free one`,
    EACCES: `port ${port} on ${host} needs privileges that this process does not have`,
    EADDRNOTAVAIL: `${host} is no address of this machine`,
    ENOTFOUND: `${host} cannot be resolved`,
  };
  const problem = problems[String(code)];
  return problem === undefined ? error : Object.assign(new Error(`${code}: ${problem}`, { cause: error }), { code });
}
