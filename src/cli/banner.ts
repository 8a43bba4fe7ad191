/** What `serve` prints when it is ready: what is served, what a session costs, where, and a first request to try. */
import type { EngineStatus } from "../engine/observer.ts";
import type { Manifest } from "../model/artifact.ts";
import { stateBytes } from "../model/state.ts";
import type { TierStats } from "../sessions/stores/tier.ts";
import type { SizedConfig } from "./memory.ts";
import { formatBytes, formatCount } from "./units.ts";

export interface BannerFacts {
  readonly version: string;
  readonly modelName: string;
  readonly manifest: Manifest;
  readonly status: EngineStatus;
  readonly config: Pick<
    SizedConfig,
    "host" | "apiKeys" | "sessionBytes" | "prefixBytes" | "storeDir" | "storeBytes" | "valkeyUrl"
  >;
  /** The memory that this process may use, where that is less than the machine's and decides how much is kept. */
  readonly memoryLimitBytes?: number;
  /** Of the store of sessions and responses. */
  readonly tiers: readonly TierStats[];
  readonly port: number;
  readonly startupMs: number;
}

export function readyBanner(facts: BannerFacts): string {
  const { version, modelName, manifest, status, config, memoryLimitBytes, port, startupMs } = facts;
  const bytes = stateBytes(manifest.state);
  const { family, precision, numParameters } = manifest;
  const url = `http://${urlHost(config.host)}:${port}`;
  const key = config.apiKeys.length > 0 ? " -H 'authorization: Bearer KEY'" : "";
  const rows = [
    ["model", `${modelName} (${family}, ${formatCount(numParameters)} parameters, ${precision})`],
    ["runtime", status.state === "ready" ? status.runner : status.state],
    [
      "sessions",
      `${formatBytes(bytes)} of state each, however long; ${formatBytes(config.sessionBytes)} hold ${Math.floor(config.sessionBytes / bytes)}`,
    ],
    ["kept in", places(facts)],
    ...(memoryLimitBytes === undefined ? [] : [["memory", memoryPlan(config, memoryLimitBytes)]]),
    ["ready", `${url} after ${(startupMs / 1000).toFixed(2)} s`],
  ];
  const body = `{"prompt": "Once upon a time", "max_tokens": 64, "stream": true}`;
  return [
    `densemamba ${version}`,
    ...rows.map(([name, value]) => `  ${name!.padEnd(10)}${value}`),
    "",
    `  curl -N ${url}/v1/completions -H 'content-type: application/json'${key} -d '${body}'`,
    "",
    "",
  ].join("\n");
}

function memoryPlan({ sessionBytes, prefixBytes }: BannerFacts["config"], limitBytes: number): string {
  const [limit, sessions, prefixes] = [limitBytes, sessionBytes, prefixBytes].map(formatBytes);
  return `${limit} at most: ${sessions} for sessions and responses, ${prefixes} for prompts' beginnings`;
}

/** Where sessions and responses are, and whether that outlives this process. */
function places({ config, tiers }: Pick<BannerFacts, "config" | "tiers">): string {
  const { sessionBytes, storeDir, storeBytes, valkeyUrl } = config;
  const named = [`memory (${formatBytes(sessionBytes)})`];
  const disk = tiers.find(({ name }) => name === "disk");
  if (storeDir !== undefined && disk !== undefined) {
    named.push(`${storeDir} (${formatBytes(storeBytes)}, ${disk.numSnapshots} found)`);
  }
  if (valkeyUrl !== undefined) {
    const isThere = tiers.find(({ name }) => name === "shared")?.isAvailable === true;
    // Without user and password.
    named.push(`Valkey at ${new URL(valkeyUrl).host}${isThere ? "" : " (cannot be reached yet)"}`);
  }
  return named.length === 1 ? `${named[0]} alone; with --store-dir they survive a restart` : named.join(", ");
}

/** What to type on this machine to reach it. */
function urlHost(host: string): string {
  if (host === "0.0.0.0" || host === "::") return "127.0.0.1";
  return host.includes(":") ? `[${host}]` : host;
}
