/** Runs the server as a process: until a signal, or until it has to be restarted. */
import { setTimeout as delay } from "node:timers/promises";
import { readNpmScript, readServiceLinks } from "../config/process.ts";
import type { Config } from "../config/schema.ts";
import { DenseMambaError } from "../errors.ts";
import { LostDeviceError } from "../runtime/native/cuda-error.ts";
import type { Log } from "../server/deps.ts";
import { type OpenServerOptions, openServer, type ReadyFacts, type RunningServer } from "./server.ts";
import { npmFacts, type SignalSource, untilNpmEnds, untilSignal } from "./shutdown.ts";

export interface RunServerOptions extends OpenServerOptions {
  readonly signals: SignalSource;
  readonly onReady: (facts: ReadyFacts) => void;
  /** Reads the API keys again, at SIGHUP, which ends the server without it. */
  readonly readApiKeys?: (() => readonly string[]) | undefined;
}

/**
 * Resolves when the server has closed after a signal.
 * @throws what prevents it from starting, or a device that is lost
 */
export async function runServer(config: Config, options: RunServerOptions): Promise<void> {
  const { logging, signals, onReady, readApiKeys } = options;
  const { log } = logging;
  let server: RunningServer | undefined;
  const onHangUp = readApiKeys && (() => reloadApiKeys(readApiKeys, server, log));
  const stopped = Promise.race([untilSignal(signals, onHangUp), untilNpmEnds(npmFacts(readNpmScript()))]);
  // A bug in one request must not end all the others.
  signals.on("unhandledRejection", (reason) => {
    log.error({ error: reason instanceof Error ? reason.stack : String(reason) }, "unhandled rejection");
  });
  const variables = readServiceLinks();
  if (variables.length > 0) log.info({ variables }, "ignored environment variables that describe a service");

  server = await openServer(config, options);
  const { lost } = server;
  onReady(server.facts);

  const reason = await Promise.race([stopped, lost]);
  const isLost = reason instanceof LostDeviceError;
  if (isLost) log.error({ error: reason.message }, "this process has lost the device and ends, to be started again");
  else {
    const { drainMs, shutdownMs } = config;
    if (drainMs > 0) {
      log.info({ signal: reason, forMs: drainMs }, "draining");
      server.drain();
      await Promise.race([delay(drainMs), lost]);
    }
    log.info({ signal: reason, withinMs: shutdownMs }, "shutting down");
  }
  await server.close();
  log.info("closed");
  if (isLost) throw reason;
}

function reloadApiKeys(read: () => readonly string[], server: RunningServer | undefined, log: Log): void {
  try {
    const keys = read();
    if (keys.length === 0) throw new DenseMambaError("invalid_config", "there are none, and there were some");
    server?.setApiKeys(keys);
    log.info({ numKeys: keys.length }, "API keys reloaded");
  } catch (error) {
    if (!(error instanceof DenseMambaError)) throw error;
    log.error({ error: error.message }, "the API keys cannot be reloaded, and stay as they are");
  }
}
