/**
 * Every option of the server: its kind of value, its default and its description. Flags, environment variables, the keys of
 * the config file, `--help` and the tables in the documents all follow from it.
 */
import path from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import {
  apiKeyList,
  boolean,
  byteSize,
  byteSizeOrAuto,
  decimal,
  duration,
  hostList,
  integer,
  oneOf,
  originList,
  text,
  valkeyUrl,
} from "./values.ts";

/** The package's own folder: the parent of `src/` in a checkout, of `dist/` in an installed package. */
export const packageRoot = fileURLToPath(new URL("../..", import.meta.url));

/** What `auto` gives these two where there is enough memory. */
export const AUTO_SESSION_BYTES = 2 ** 30;
export const AUTO_PREFIX_BYTES = 256 * 2 ** 20;

const MAX_INT32 = 2 ** 31 - 1;
const DAY_MS = 86_400_000;
const TEN_YEARS_MS = 3650 * DAY_MS;

export const configSchema = z.strictObject({
  model: text("a folder, or a model on the Hugging Face hub")
    .default(path.join(packageRoot, "models", "densemamba-tales-4m"))
    .meta({
      isPath: true,
      description: "folder of a checkpoint or a compiled artifact, or org/name[@revision] on the Hugging Face hub",
      argument: "<model>",
      shownDefault: "the packaged one",
    }),
  tokenizer: text("a folder, or a model on the Hugging Face hub").optional().meta({
    isPath: true,
    description: "folder or hub model whose tokenizer to use if the model has none",
    argument: "<model>",
    shownDefault: "the model's own",
  }),
  modelName: text()
    .optional()
    .meta({ description: "model name that clients see", argument: "<name>", shownDefault: "the folder's name" }),
  host: text("a host name or address").default("127.0.0.1").meta({ description: "address to listen on" }),
  port: integer(0, 65_535).default(8080).meta({ description: "port to listen on; 0 for any free one" }),
  device: oneOf("auto", "cpu", "cuda").default("auto").meta({
    description: "where to run; auto uses CUDA if it is available",
    argument: "<auto|cpu|cuda>",
  }),
  precision: oneOf("auto", "f32", "f16", "bf16", "int8", "int4").default("auto").meta({
    description: "precision of the weights; auto is int8 on a CPU, bf16 on CUDA (f16 before sm_80)",
    argument: "<auto|f32|f16|bf16|int8|int4>",
  }),
  runtime: oneOf("native", "portable").default("native").meta({
    description: "ONNX Runtime through its C API, or through its Node binding in a worker thread",
    argument: "<native|portable>",
  }),
  kernels: oneOf("auto", "off").default("auto").meta({
    description: "our own operators; auto uses them if they are built or a compiler is available",
    argument: "<auto|off>",
  }),
  kernelLibrary: text("a file").optional().meta({
    isPath: true,
    description: "library built by `densemamba kernels`, in place of the cached one",
    argument: "<file>",
    shownDefault: "none",
  }),
  cCompiler: text("a command").meta({
    description: "C compiler that builds the kernels",
    argument: "<command>",
    shownDefault: "$CC, or cc",
  }),
  nvcc: text("a command").meta({
    description: "CUDA compiler that builds the CUDA kernels",
    argument: "<command>",
    shownDefault: "$CUDA_HOME/bin/nvcc, or nvcc",
  }),
  threads: integer(0, 1024).default(0).meta({ description: "threads of the runtime; 0 for one per available core" }),
  maxBatch: integer(1, 1024).default(32).meta({ description: "sequences that run at once" }),
  maxQueue: integer(0, 1_000_000)
    .default(256)
    .meta({ description: "sequences that may wait; further ones are refused with 429" }),
  prefillChunk: integer(1, 65_536).default(256).meta({ description: "most prompt tokens that one step reads" }),
  prefillStall: decimal(0.1, 1_000_000).default(1.5).meta({
    description: "longest delay of running streams by reading prompts, in decode steps",
    argument: "<steps>",
  }),
  maxPromptTokens: integer(1, MAX_INT32).default(131_072).meta({ description: "longest prompt, in tokens" }),
  maxOutputTokens: integer(1, MAX_INT32).default(16_384).meta({
    description: "longest output, in tokens, and the limit of a request that gives none",
  }),
  maxAnswerTokens: integer(1, MAX_INT32)
    .default(4 * 2 ** 20)
    .meta({
      description: "largest answer: choices × tokens shown × (1 + log-probabilities per token)",
      shownDefault: "4194304",
    }),
  maxBodyBytes: byteSize(1024, 2 ** 30)
    .default(4 * 2 ** 20)
    .meta({
      description: "largest request body or WebSocket message",
      argument: "<size>",
      shownDefault: "4MiB",
    }),
  maxConnections: integer(1, 1_000_000).default(1024).meta({ description: "open WebSocket connections" }),
  sessionBytes: byteSizeOrAuto(0, 2 ** 50)
    .default("auto")
    .meta({
      description: "memory for sessions and stored responses; auto is 1GiB, or less if memory is short",
      argument: "<size>",
    }),
  storeDir: text("a folder").optional().meta({
    isPath: true,
    description: "folder of this server's own that keeps sessions and responses across restarts",
    argument: "<dir>",
    shownDefault: "none",
  }),
  storeBytes: byteSize(1, 2 ** 50)
    .default(16 * 2 ** 30)
    .meta({
      description: "disk space for them; the least recently used are evicted first",
      argument: "<size>",
      shownDefault: "16GiB",
      needs: ["storeDir"],
    }),
  valkeyUrl: valkeyUrl().optional().meta({
    description: "Valkey or Redis server that replicas share them on: valkey://[user:password@]host[:port][/db]",
    argument: "<url>",
    shownDefault: "none",
  }),
  valkeyPrefix: text()
    .default("densemamba:")
    .meta({
      description: "prefix of every key on that server; the same for all replicas of a model",
      argument: "<text>",
      needs: ["valkeyUrl"],
    }),
  valkeyTimeoutMs: duration(1, 600_000)
    .default(2000)
    .meta({
      description: "time that server may take to answer before a request goes on without it",
      argument: "<ms>",
      needs: ["valkeyUrl"],
    }),
  statePrecision: oneOf("f32", "f16").default("f32").meta({
    description: "states on disk and on that server; f16 halves the bytes and is not exact",
    argument: "<f32|f16>",
  }),
  sessionTtlMs: duration(0, TEN_YEARS_MS).default(0).meta({
    description: "time after its last use when a session expires; 0 for never",
    argument: "<ms>",
  }),
  responseTtlMs: duration(0, TEN_YEARS_MS)
    .default(30 * DAY_MS)
    .meta({
      description: "age at which a stored response expires; 0 for never",
      argument: "<ms>",
      shownDefault: "30d",
    }),
  sessionsPerKey: integer(0, MAX_INT32).default(0).meta({
    description: "sessions that one API key may have; 0 for no limit",
  }),
  sessionBytesPerKey: byteSize(0, 2 ** 50)
    .default(0)
    .meta({
      description: "bytes that one API key's sessions and responses may take; 0 for no limit",
      argument: "<size>",
    }),
  prefixBytes: byteSizeOrAuto(0, 2 ** 50)
    .default("auto")
    .meta({
      description: "memory for the prefix cache; 0 disables it; auto is 256MiB, or less if memory is short",
      argument: "<size>",
    }),
  prefixScope: oneOf("key", "all")
    .default("key")
    .meta({
      description: "who may reuse a cached prefix: requests with the same API key, or all",
      argument: "<key|all>",
      needs: ["prefixBytes"],
    }),
  prefixDiskBytes: byteSize(0, 2 ** 50)
    .default(0)
    .meta({
      description: "disk space for cached prefixes in the store's folder; 0 for none",
      argument: "<size>",
      needs: ["storeDir", "prefixBytes"],
    }),
  sharePrefixes: boolean()
    .default(false)
    .meta({
      description: "store cached prefixes on the Valkey server too, for all replicas",
      needs: ["valkeyUrl", "prefixBytes"],
    }),
  apiKeys: apiKeyList().prefault([]).meta({
    description: "accepted bearer token; may be repeated; without any, the server is open to all",
    flag: "--api-key",
    argument: "<key>",
    repeatable: true,
    shownDefault: "none",
  }),
  allowedHosts: hostList().prefault([]).meta({
    description: "host name that requests may use if no API key is required; may be repeated; * for any",
    flag: "--allowed-host",
    argument: "<name>",
    repeatable: true,
    shownDefault: "--host and this machine's own names",
  }),
  corsOrigins: originList().prefault([]).meta({
    description: "origin that browsers may call from; may be repeated; * for any",
    flag: "--cors-origin",
    argument: "<origin>",
    repeatable: true,
    shownDefault: "none",
  }),
  metricsNeedKey: boolean().default(false).meta({ description: "require an API key for /metrics too" }),
  trustRequestTemplates: boolean().default(false).meta({
    description: "let requests bring their own chat_template, which is a program",
  }),
  heartbeatMs: duration(100, 3_600_000).default(15_000).meta({
    description: "silence on a stream after which a heartbeat is sent",
    argument: "<ms>",
  }),
  streamGapMs: duration(0, 1000).default(16).meta({
    description:
      "longest time to collect a stream's tokens for one write, up to three times that under load; 0 for none",
    argument: "<ms>",
  }),
  resumeMs: duration(0, 3_600_000).default(15_000).meta({
    description: "time that a stored response runs on for a client that lost its stream",
    argument: "<ms>",
  }),
  resumeBytes: byteSize(0, 2 ** 40)
    .default(2 ** 20)
    .meta({
      description: "text that such a response may run ahead by before it is paused",
      argument: "<size>",
      shownDefault: "1MiB",
    }),
  backgroundMs: duration(1, MAX_INT32).default(3_600_000).meta({
    description: "longest time that a background response may take",
    argument: "<ms>",
  }),
  shutdownMs: duration(0, 3_600_000).default(8000).meta({
    description: "time that running requests get to finish on SIGTERM",
    argument: "<ms>",
  }),
  allowNonFinite: boolean().default(false).meta({ description: "compile even if some weights are NaN or infinite" }),
  cacheDir: text("a folder").meta({
    isPath: true,
    description: "folder of compiled models and kernels",
    argument: "<dir>",
    shownDefault: "~/.cache/densemamba",
  }),
  logLevel: oneOf("trace", "debug", "info", "warn", "error", "fatal", "silent").default("info").meta({
    description: "least severe level to log: trace, debug, info, warn, error, fatal, silent",
    argument: "<level>",
  }),
});

export type Config = Readonly<z.output<typeof configSchema>>;
export type ConfigKey = keyof Config;

export const ENVIRONMENT_PREFIX = "DENSEMAMBA_";

/** How an option is named and described. */
export interface ConfigOption {
  readonly key: ConfigKey;
  /** E.g. `--max-batch`. */
  readonly flag: string;
  /** E.g. `<n>`; empty for a switch. */
  readonly argument: string;
  /** E.g. `DENSEMAMBA_MAX_BATCH`. */
  readonly variable: string;
  readonly description: string;
  readonly shownDefault: string;
  readonly repeatable: boolean;
  /** The value is a path, in which `~` is expanded. */
  readonly isPath: boolean;
  /** Options without which this one has no effect. */
  readonly needs: readonly ConfigKey[];
}

export const configOptions: readonly ConfigOption[] = Object.entries(configSchema.shape).map(([key, option]) => {
  const meta = option.meta() ?? {};
  const fallback: unknown = option instanceof z.ZodDefault ? option.def.defaultValue : undefined;
  return {
    key: key as ConfigKey,
    flag: String(meta.flag ?? `--${words(key).join("-")}`),
    argument: String(meta.argument ?? argumentOf(key, fallback)),
    variable: ENVIRONMENT_PREFIX + words(key).join("_").toUpperCase(),
    description: String(meta.description),
    shownDefault: String(meta.shownDefault ?? fallback),
    repeatable: meta.repeatable === true,
    isPath: meta.isPath === true,
    needs: (meta.needs ?? []) as ConfigKey[],
  };
});

function argumentOf(key: string, fallback: unknown): string {
  if (typeof fallback === "boolean") return "";
  return typeof fallback === "number" ? "<n>" : `<${key}>`;
}

/** `maxBatch` → [max, batch] */
function words(key: string): string[] {
  return key.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`).split(" ");
}
