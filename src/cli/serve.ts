/** `densemamba serve`: loads the model, listens, says so, and ends in an orderly way on a signal. */
import { pino } from "pino";
import type { Config } from "../config.ts";
import { readyBanner } from "./banner.ts";
import { loadModel } from "./load-model.ts";
import { showProgress } from "./progress.ts";
import { type SignalSource, untilSignal } from "./shutdown.ts";
import type { Terminal } from "./terminal.ts";
import { programVersion } from "./version.ts";

/** Of the time to shut down: what streams get to flush their last chunk after the engine has ended them. */
const FLUSH_SHARE = 0.1;

/** Resolves when the server has closed after a signal. @throws what keeps it from starting. */
export async function serve(config: Config, terminal: Terminal, signals: SignalSource): Promise<void> {
  const log = pino({ level: config.logLevel, base: null }, terminal.stderr);
  const stopped = untilSignal(signals);
  // A bug in one request must not end everybody else's: it is told, and the server goes on.
  signals.on("unhandledRejection", (reason) => {
    log.error({ error: reason instanceof Error ? reason.stack : String(reason) }, "unhandled rejection");
  });
  const loading = loadModel(config, {
    numSlots: config.maxBatch,
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
  const tokenizer = await requireTokenizer(config);
  const model = await loading;
  const service = await createService(config, model, { tokenizer, log });
  const { host, port } = config;
  const { app, deps, responses } = service;
  const listener = await listen({ app, deps, responses, host, port }).catch(async (error) => {
    await service.engine.close({ deadlineMs: 0 });
    throw explainListenError(error, config);
  });

  terminal.stdout.write(
    readyBanner({
      version: programVersion(),
      modelName: service.deps.model.name,
      manifest: model.manifest,
      status: service.engine.status,
      config,
      port: listener.port,
      // Since the process began.
      startupMs: performance.now(),
    }),
  );

  const signal = await stopped;
  log.info({ signal, withinMs: config.shutdownMs }, "shutting down");
  await Promise.all([
    listener.close(config.shutdownMs),
    service.engine.close({ deadlineMs: config.shutdownMs * (1 - FLUSH_SHARE) }),
  ]);
  log.info("closed");
}

function explainListenError(error: unknown, { host, port }: Config): unknown {
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
