/** The options of the server: what is configured, and bounds that are not. */
import type { Config } from "../config/schema.ts";
import type { ServerOptions } from "../server/deps.ts";
import { isLoopback } from "../server/http/access.ts";

export function serverOptions(config: Config): ServerOptions {
  const { apiKeys, metricsNeedKey, corsOrigins, rootPath, trustRequestTemplates, heartbeatMs, streamGapMs } = config;
  const { maxBodyBytes, maxPromptTokens, maxOutputTokens } = config;
  return {
    apiKeys,
    metricsNeedKey,
    allowedHosts: allowedHosts(config),
    corsOrigins,
    rootPath,
    trustRequestTemplates,
    heartbeatMs,
    streamGapMs,
    stallTimeoutMs: 60_000,
    limits: {
      maxBodyBytes,
      maxPromptTokens,
      maxOutputTokens,
      maxChoices: 128,
      maxStopStrings: 32,
      maxStopLength: 256,
      maxHistoryBytes: 64 * 1024 * 1024,
      maxCheckpointBytes: config.checkpointBytesPerSession,
      // As much as JSON.parse and the checks after it get through in some 20 ms; the longest prompt
      // must fit.
      json: {
        maxDepth: 100,
        maxItems: Math.max(2 ** 19, maxPromptTokens + 2 ** 16),
        maxStrings: 2 ** 16,
        maxMembers: 20_480,
      },
    },
    webSocket: {
      maxConnections: config.maxConnections,
      maxMessageBytes: maxBodyBytes,
      maxConnectionMs: 60 * 60_000,
      maxStreams: 32,
      maxInFlight: 16,
      maxQueued: 64,
      maxUnstoredPerStream: 8,
      pingIntervalMs: 30_000,
      highWaterBytes: 128 * 1024,
      lowWaterBytes: 32 * 1024,
    },
    maxIncomingBytes: Math.max(64 * 1024 * 1024, 2 * maxBodyBytes),
    resume: { waitMs: config.resumeMs, waitBytes: config.resumeBytes, backgroundMs: config.backgroundMs },
    sharesStore: config.valkeyUrl !== undefined,
    storeRequired: config.storeRequired,
    timeouts: { headersMs: 30_000, requestMs: 120_000, keepAliveMs: 75_000 },
    maxHeaderBytes: 16 * 1024,
  };
}

/** A server on a loopback address knows its names; any other checks them only if some are given. */
function allowedHosts({ host, allowedHosts: given, apiKeys }: Config): readonly string[] | undefined {
  return given.length > 0 || (apiKeys.length === 0 && isLoopback(host)) ? [host, ...given] : undefined;
}
