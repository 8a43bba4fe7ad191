/** `densemamba serve`: runs the server, and prints what it serves and a first request to try. */
import { isatty } from "node:tty";
import { openLog, type ServerLog } from "../app/log.ts";
import { withModelFolders, withModelsInside } from "../app/model-folder.ts";
import { runServer } from "../app/run-server.ts";
import { checkAddress, type ReadyFacts } from "../app/server.ts";
import type { SignalSource } from "../app/shutdown.ts";
import { programVersion } from "../config/process.ts";
import { stateBytes } from "../model/state.ts";
import { describeFailure, LoggedFailure } from "./failure.ts";
import { describeConfig, parsedFrom } from "./flags.ts";
import { formatBytes, formatCount, showProgress, type Terminal, write } from "./terminal.ts";

/** As commander gives them. */
export interface ServeFlags extends Readonly<Record<string, unknown>> {
  /** Prints the configuration instead. */
  readonly printConfig?: boolean;
}

/**
 * Resolves when the server has closed after a signal. What goes to stderr is the log, except on a
 * terminal: there progress is a bar, and a failure plain text.
 * @throws what prevents it from starting, or `LoggedFailure`
 */
export async function serve(flags: ServeFlags, terminal: Terminal, signals: SignalSource): Promise<void> {
  if (flags.printConfig) return write(terminal.stdout, `${describeConfig(parsedFrom(flags))}\n`);
  const { stdout, stderr } = terminal;
  const logging = openLog("info", stderr);
  // Output that cannot be written (a closed terminal, a full disk) is no reason to end.
  for (const stream of [stdout, stderr]) stream.removeAllListeners("error").on("error", () => {});
  try {
    await start(flags, { terminal, logging, signals });
  } catch (error) {
    if (stderr.isTTY || !logging.log.isLevelEnabled("fatal")) throw error;
    const failure = describeFailure(error);
    const errorCode = error instanceof Error && "code" in error ? error.code : "internal_error";
    logging.log.fatal({ errorCode }, failure.message?.replace(/^error: /, ""));
    throw new LoggedFailure(error, failure);
  } finally {
    await logging.close();
  }
}

interface ServeParts {
  readonly terminal: Terminal;
  readonly logging: ServerLog;
  readonly signals: SignalSource;
}

async function start(flags: ServeFlags, { terminal, logging, signals }: ServeParts): Promise<void> {
  const { config: given, fromFiles } = parsedFrom(flags);
  logging.log.level = given.logLevel;
  const onProgress = showProgress(terminal, { writeLine: (line) => logging.log.info(line) });
  await checkAddress(given);
  const config = withModelsInside(await withModelFolders(given, onProgress));
  // When a terminal closes, its programs end.
  const readsKeysAgain = fromFiles.has("apiKeys") && ![0, 1, 2].some((descriptor) => isatty(descriptor));
  await runServer(config, {
    logging,
    signals,
    onProgress,
    onReady: (facts) => void terminal.stdout.write(readyBanner(programVersion(), facts)),
    readApiKeys: readsKeysAgain ? () => parsedFrom(flags).config.apiKeys : undefined,
  });
}

export function readyBanner(version: string, facts: ReadyFacts): string {
  const { modelName, manifest, status, config, memoryLimitBytes, others, port, startupMs } = facts;
  const { family, precision, numParameters } = manifest;
  const { sessionBytes, prefixBytes } = config;
  const bytes = stateBytes(manifest.state);
  const url = `http://${urlHost(config.host)}:${port}`;
  const key = config.apiKeys.length > 0 ? " -H 'authorization: Bearer KEY'" : "";
  const rows = [
    ["model", `${modelName} (${family}, ${formatCount(numParameters)} parameters, ${precision})`],
    ...others.map(({ name, state }) => ["", state.value === "failed" ? `${name}: ${state.error}` : name]),
    ["runtime", status.state === "ready" ? status.runner : status.state],
    [
      "sessions",
      `${formatBytes(bytes)} of state each, however long; ${formatBytes(sessionBytes)} hold ${Math.floor(sessionBytes / bytes)}`,
    ],
    ["stored in", describeTiers(facts)],
    ["ready", `${url} after ${(startupMs / 1000).toFixed(2)} s`],
  ];
  if (memoryLimitBytes !== undefined) {
    const [limit, sessions, prefixes] = [memoryLimitBytes, sessionBytes, prefixBytes].map(formatBytes);
    const plan = `limited to ${limit}: ${sessions} for sessions and responses, ${prefixes} for the prefix cache`;
    rows.splice(-1, 0, ["memory", plan]);
  }
  const body = `{"prompt": "Once upon a time", "max_tokens": 64, "stream": true}`;
  return [
    `densemamba ${version}`,
    ...rows.map(([name, value]) => `  ${name!.padEnd(11)}${value}`),
    "",
    `  curl -N ${url}/v1/completions -H 'content-type: application/json'${key} -d '${body}'`,
    "",
    "",
  ].join("\n");
}

/** Where sessions and responses are, and whether they outlive this process. */
function describeTiers({ config, tiers }: Pick<ReadyFacts, "config" | "tiers">): string {
  const { sessionBytes, storeDir, storeBytes, valkeyUrl } = config;
  const places = [`memory (${formatBytes(sessionBytes)})`];
  const disk = tiers.find(({ name }) => name === "disk");
  if (storeDir !== undefined && disk !== undefined) {
    places.push(`${storeDir} (${formatBytes(storeBytes)}, ${disk.numSnapshots} found)`);
  }
  if (valkeyUrl !== undefined) {
    const isAvailable = tiers.find(({ name }) => name === "shared")?.isAvailable === true;
    // Without user and password.
    places.push(`Valkey at ${new URL(valkeyUrl).host}${isAvailable ? "" : " (cannot be reached yet)"}`);
  }
  return places.length === 1 ? `${places[0]} only; with --store-dir they survive a restart` : places.join(", ");
}

/** What to type on this machine to reach it. */
function urlHost(host: string): string {
  if (host === "0.0.0.0" || host === "::") return "127.0.0.1";
  return host.includes(":") ? `[${host}]` : host;
}
