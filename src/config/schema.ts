/**
 * Every option of the server: its kind of value, its default and its description. The flags, the environment variables,
 * the config file's keys, `--help` and the tables of the documents all come from here.
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

/** The package's own folder: above `src/` in a checkout, above `dist/` in an installed package. */
export const packageRoot = fileURLToPath(new URL("../..", import.meta.url));

const MAX_INT32 = 2 ** 31 - 1;
const DAY_MS = 86_400_000;
const TEN_YEARS_MS = 3650 * DAY_MS;

export const configSchema = z.strictObject({
  model: text("a folder, or a model on the Hugging Face hub")
    .default(path.join(packageRoot, "models", "densemamba-tales-4m"))
    .meta({
      isPath: true,
      description: "folder of a checkpoint or compiled artifact, or org/name[@revision] on the Hugging Face hub",
      argument: "<model>",
      shownDefault: "the packaged one",
    }),
  tokenizer: text("a folder, or a model on the Hugging Face hub").optional().meta({
    isPath: true,
    description: "folder or model whose tokenizer is used, where the model itself has none",
    argument: "<model>",
    shownDefault: "the model's own",
  }),
  modelName: text()
    .optional()
    .meta({ description: "name of the model on the wire", argument: "<name>", shownDefault: "the folder's name" }),
  host: text("a host name or address").default("127.0.0.1").meta({ description: "address to listen on" }),
  port: integer(0, 65_535).default(8080).meta({ description: "port to listen on; 0 takes any free one" }),
  device: oneOf("auto", "cpu", "cuda").default("auto").meta({
    description: "where to run; auto takes CUDA if there is one",
    argument: "<auto|cpu|cuda>",
  }),
  precision: oneOf("auto", "f32", "f16", "int8", "int4").default("auto").meta({
    description: "weights; auto is int8 on a CPU, f16 on CUDA",
    argument: "<auto|f32|f16|int8|int4>",
  }),
  runtime: oneOf("native", "portable").default("native").meta({
    description: "ONNX Runtime through its C API, or its Node binding in a worker",
    argument: "<native|portable>",
  }),
  kernels: oneOf("auto", "off").default("auto").meta({
    description: "own operators; auto takes them where they are built or a compiler for the device is there",
    argument: "<auto|off>",
  }),
  kernelLibrary: text("a file").optional().meta({
    isPath: true,
    description: "library of them that `densemamba kernels` built, in place of one in the cache",
    argument: "<file>",
    shownDefault: "none",
  }),
  cCompiler: text("a command").meta({
    description: "C compiler that builds them into the cache",
    argument: "<command>",
    shownDefault: "$CC, or cc",
  }),
  nvcc: text("a command").meta({
    description: "CUDA compiler that builds those for CUDA into the cache",
    argument: "<command>",
    shownDefault: "$CUDA_HOME/bin/nvcc, or nvcc",
  }),
  threads: integer(0, 1024).default(0).meta({ description: "threads of the runtime; 0 takes one per usable core" }),
  maxBatch: integer(1, 1024).default(32).meta({ description: "sequences that run together" }),
  maxQueue: integer(0, 1_000_000)
    .default(256)
    .meta({ description: "sequences that may wait; more are refused with 429" }),
  prefillChunk: integer(1, 65_536).default(256).meta({ description: "most prompt tokens that a step reads" }),
  prefillStall: decimal(0.1, 1_000_000).default(1.5).meta({
    description: "how long reading them may hold up running streams, in steps of theirs",
    argument: "<steps>",
  }),
  maxPromptTokens: integer(1, MAX_INT32).default(131_072).meta({ description: "longest prompt" }),
  maxOutputTokens: integer(1, MAX_INT32).default(16_384).meta({
    description: "longest output, and the output of a request that names no length",
  }),
  maxAnswerTokens: integer(1, MAX_INT32)
    .default(4 * 2 ** 20)
    .meta({
      description: "largest answer: choices times tokens shown times one more than their log-probabilities",
      shownDefault: "4194304",
    }),
  maxBodyBytes: byteSize(1024, 2 ** 30)
    .default(4 * 2 ** 20)
    .meta({
      description: "largest request body or WebSocket message",
      argument: "<size>",
      shownDefault: "4MiB",
    }),
  maxConnections: integer(1, 1_000_000).default(1024).meta({ description: "WebSocket connections at once" }),
  sessionBytes: byteSizeOrAuto(0, 2 ** 50)
    .default("auto")
    .meta({
      description:
        "memory for kept sessions and responses; when it is full, the API key that holds the most loses its least recently used; auto is 1GiB, less where memory is short",
      argument: "<size>",
    }),
  storeDir: text("a folder").optional().meta({
    isPath: true,
    description: "folder where sessions and responses survive a restart, this server's own",
    argument: "<dir>",
    shownDefault: "none",
  }),
  storeBytes: byteSize(1, 2 ** 50)
    .default(16 * 2 ** 30)
    .meta({
      description: "disk for them; the least recently used go first",
      argument: "<size>",
      shownDefault: "16GiB",
      needs: ["storeDir"],
    }),
  valkeyUrl: valkeyUrl().optional().meta({
    description: "Valkey or Redis server that several replicas keep them on: valkey://[user:password@]host[:port][/db]",
    argument: "<url>",
    shownDefault: "none",
  }),
  valkeyPrefix: text()
    .default("densemamba:")
    .meta({
      description: "what keys on that server begin with; the same for replicas of one model",
      argument: "<text>",
      needs: ["valkeyUrl"],
    }),
  valkeyTimeoutMs: duration(1, 600_000)
    .default(2000)
    .meta({
      description: "silence of that server after which a request goes on without it",
      argument: "<ms>",
      needs: ["valkeyUrl"],
    }),
  statePrecision: oneOf("f32", "f16").default("f32").meta({
    description: "states on disk and on that server; f16 is half the bytes, and not exact",
    argument: "<f32|f16>",
  }),
  sessionTtlMs: duration(0, TEN_YEARS_MS).default(0).meta({
    description: "time after its last use that a session is forgotten; 0 for never",
    argument: "<ms>",
  }),
  responseTtlMs: duration(0, TEN_YEARS_MS)
    .default(30 * DAY_MS)
    .meta({
      description: "age at which a response is forgotten; 0 for never",
      argument: "<ms>",
      shownDefault: "30d",
    }),
  sessionsPerKey: integer(0, MAX_INT32).default(0).meta({
    description: "sessions that one API key may have; 0 for any number",
  }),
  sessionBytesPerKey: byteSize(0, 2 ** 50)
    .default(0)
    .meta({
      description: "bytes that sessions and responses of one API key may take; 0 for any number",
      argument: "<size>",
    }),
  prefixBytes: byteSizeOrAuto(0, 2 ** 50)
    .default("auto")
    .meta({
      description:
        "memory for states at the beginnings of prompts, which then are not read twice; 0 for none; auto is 256MiB, or less",
      argument: "<size>",
    }),
  prefixScope: oneOf("key", "all")
    .default("key")
    .meta({
      description: "which requests may reuse them: those with the same API key, or all",
      argument: "<key|all>",
      needs: ["prefixBytes"],
    }),
  prefixDiskBytes: byteSize(0, 2 ** 50)
    .default(0)
    .meta({
      description: "disk for them in the store's folder, so that they survive a restart; 0 for none",
      argument: "<size>",
      needs: ["storeDir", "prefixBytes"],
    }),
  sharePrefixes: boolean()
    .default(false)
    .meta({
      description: "keep them on the Valkey server too, so that replicas read no prompt twice",
      needs: ["valkeyUrl", "prefixBytes"],
    }),
  apiKeys: apiKeyList().prefault([]).meta({
    description: "accepted Bearer key, may be repeated; none means open to all",
    flag: "--api-key",
    argument: "<key>",
    repeatable: true,
    shownDefault: "none",
  }),
  allowedHosts: hostList().prefault([]).meta({
    description: "host name that requests may use where no API key is required; may be repeated; * for any",
    flag: "--allowed-host",
    argument: "<name>",
    repeatable: true,
    shownDefault: "--host and this machine's own names",
  }),
  corsOrigins: originList().prefault([]).meta({
    description: "origin that browsers may call from, may be repeated; * for any",
    flag: "--cors-origin",
    argument: "<origin>",
    repeatable: true,
    shownDefault: "none",
  }),
  metricsNeedKey: boolean().default(false).meta({ description: "ask for a key on /metrics too" }),
  trustRequestTemplates: boolean().default(false).meta({
    description: "let requests bring their own chat_template, which is a program",
  }),
  heartbeatMs: duration(100, 3_600_000).default(15_000).meta({
    description: "silence on a stream after which a heartbeat is sent",
    argument: "<ms>",
  }),
  streamGapMs: duration(0, 1000).default(16).meta({
    description:
      "how long a stream's tokens may gather for one write, up to three times that where many run; 0: not at all",
    argument: "<ms>",
  }),
  resumeMs: duration(0, 3_600_000).default(15_000).meta({
    description: "time that a stored response goes on for a client that lost its stream",
    argument: "<ms>",
  }),
  resumeBytes: byteSize(0, 2 ** 40)
    .default(2 ** 20)
    .meta({
      description: "text that such a response may be ahead by before it is held back",
      argument: "<size>",
      shownDefault: "1MiB",
    }),
  backgroundMs: duration(1, MAX_INT32).default(3_600_000).meta({
    description: "time that a response in the background gets to end",
    argument: "<ms>",
  }),
  shutdownMs: duration(0, 3_600_000).default(8000).meta({
    description: "time that running requests get to end on SIGTERM",
    argument: "<ms>",
  }),
  allowNonFinite: boolean().default(false).meta({ description: "compile weights that are NaN or infinite too" }),
  cacheDir: text("a folder").meta({
    isPath: true,
    description: "where compiled models are kept",
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
