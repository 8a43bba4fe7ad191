/**
 * Every option of the server: its kind of value, its default and its description. Flags,
 * environment variables, the keys of the config file, `--help` and the tables in the documents all
 * follow from it.
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import {
  apiKeyList,
  boolean,
  byteSize,
  byteSizeOrAuto,
  decimal,
  duration,
  durationOrNever,
  fileList,
  hostList,
  integer,
  type KindMeta,
  type ModelSource,
  modelList,
  nameList,
  oneOf,
  originList,
  path,
  secret,
  text,
  urlPath,
  valkeyUrl,
} from "./values.ts";

/**
 * The package's own folder: the parent of `src/` in a checkout, of `dist/` in an installed package.
 */
export const packageRoot = fileURLToPath(new URL("../..", import.meta.url));

/** What `auto` gives these two where there is enough memory. */
export const AUTO_SESSION_BYTES = 2 ** 30;
export const AUTO_PREFIX_BYTES = 256 * 2 ** 20;

const MAX_INT32 = 2 ** 31 - 1;
/** As at Ollama. */
export const USUAL_KEEP_ALIVE_MS = 5 * 60_000;
const TEN_YEARS_MS = 3650 * 86_400_000;
const MAX_BYTES = 2 ** 50;

export const configSchema = z.strictObject({
  model: option(
    modelList(),
    [join(packageRoot, "models", "densemamba-tales-4m")],
    "folder of a checkpoint or a compiled artifact, or org/name[@revision] on the Hugging Face hub; serve takes several, as name=model if need be, or a folder of models",
    { shownDefault: "the packaged one" },
  ),
  modelsBytes: optional(
    byteSizeOrAuto(1, MAX_BYTES),
    "memory for the weights and slots of several models; the least recently used is unloaded first; auto is half of the memory available",
    { shownDefault: "auto with several models" },
  ),
  keepAlive: optional(
    durationOrNever(0, TEN_YEARS_MS),
    "time after its last request when a model is unloaded, or never",
    { shownDefault: "5min with several models; a single one stays loaded" },
  ),
  tokenizer: optional(
    path("<model>", "a folder, or a model on the Hugging Face hub"),
    "folder or hub model whose tokenizer to use if the model has none",
    { shownDefault: "the model's own" },
  ),
  modelName: option(nameList(), [], "model name that clients see; may be repeated: further ones are aliases", {
    shownDefault: "the folder's name",
  }),
  anyModelName: option(boolean(), false, "serve requests for any other model name too"),
  host: option(text("<host>", "a host name or address"), "127.0.0.1", "address to listen on"),
  port: option(integer(0, 65_535), 8080, "port to listen on; 0 for any free one"),
  device: option(oneOf("auto", "cpu", "cuda"), "auto", "where to run; auto uses CUDA if it is available"),
  precision: option(
    oneOf("auto", "f32", "f16", "bf16", "int8", "int4"),
    "auto",
    "precision of the weights; auto is int8 on a CPU, bf16 on CUDA (f16 before sm_80)",
  ),
  statePrecision: option(
    oneOf("auto", "f32", "f16"),
    "auto",
    "precision of the running states; auto is f32, and with weights in f16 as docs/compiler.md says",
  ),
  runtime: option(
    oneOf("native", "portable"),
    "native",
    "ONNX Runtime through its C API, or, on a CPU, through its Node binding in a worker thread",
  ),
  kernels: option(
    oneOf("auto", "off"),
    "auto",
    "our own operators; auto uses them if they are built or a compiler is available",
  ),
  kernelLibrary: optional(
    path("<file>", "a file"),
    "library built by `densemamba kernels`, in place of the cached one",
  ),
  cCompiler: required(text("<command>", "a command"), "$CC, or cc", "C compiler that builds the kernels"),
  nvcc: required(
    text("<command>", "a command"),
    "$CUDA_HOME/bin/nvcc, or nvcc",
    "CUDA compiler that builds the CUDA kernels",
  ),
  threads: option(integer(0, 1024), 0, "threads of the runtime; 0 for one per available core"),
  maxBatch: option(integer(1, 1024), 32, "sequences that run at once"),
  maxQueue: option(integer(0, 1_000_000), 256, "sequences that may wait; further ones are refused with 429"),
  prefillChunk: option(integer(1, 65_536), 256, "most prompt tokens that one step reads"),
  prefillStall: option(
    decimal(0.1, 1_000_000),
    1.5,
    "longest delay of running streams by reading prompts, in decode steps",
    { argument: "<steps>" },
  ),
  maxPromptTokens: option(integer(1, MAX_INT32), 131_072, "longest prompt, in tokens"),
  maxOutputTokens: option(
    integer(1, MAX_INT32),
    16_384,
    "longest output, in tokens, and the limit of a request that gives none",
  ),
  maxAnswerTokens: option(
    integer(1, MAX_INT32),
    4 * 2 ** 20,
    "largest answer: choices × tokens shown × (1 + log-probabilities per token)",
  ),
  maxBodyBytes: option(byteSize(1024, 2 ** 30), "4MiB", "largest request body or WebSocket message"),
  maxConnections: option(integer(1, 1_000_000), 1024, "open WebSocket connections"),
  sessionBytes: option(
    byteSizeOrAuto(0, MAX_BYTES),
    "auto",
    "memory for sessions and stored responses; auto is 1GiB, or less if memory is short",
  ),
  storeDir: optional(
    path("<dir>", "a folder"),
    "folder of this server's own that keeps sessions and responses across restarts",
  ),
  storeBytes: option(
    byteSize(1, MAX_BYTES),
    "16GiB",
    "disk space for them; the least recently used are evicted first",
    { needs: ["storeDir"] },
  ),
  valkeyUrl: optional(
    valkeyUrl(),
    "Valkey or Redis server that replicas share them on: valkey://[user:password@]host[:port][/db]",
  ),
  valkeyPrefix: option(
    text("<text>"),
    "densemamba:",
    "prefix of every key on that server; the same for all replicas of a model",
    { needs: ["valkeyUrl"] },
  ),
  valkeyTimeoutMs: option(
    duration(1, 600_000),
    2000,
    "time that server may take to answer before a request goes on without it",
    { needs: ["valkeyUrl"] },
  ),
  storeRequired: option(
    boolean(),
    false,
    "do not start without the Valkey server, and refuse requests while it cannot be used",
    { needs: ["valkeyUrl"] },
  ),
  storePrecision: option(
    oneOf("f32", "f16"),
    "f32",
    "states on disk and on that server, if they run in f32; f16 halves the bytes and is not exact",
  ),
  sessionTtlMs: option(duration(0, TEN_YEARS_MS), 0, "time after its last use when a session expires; 0 for never"),
  responseTtlMs: option(duration(0, TEN_YEARS_MS), "30d", "age at which a stored response expires; 0 for never"),
  sessionsPerKey: option(integer(0, MAX_INT32), 0, "sessions that one API key may have; 0 for no limit"),
  sessionBytesPerKey: option(
    byteSize(0, MAX_BYTES),
    0,
    "bytes that one API key's sessions and responses may take; 0 for no limit",
  ),
  checkpointsPerSession: option(
    integer(1, 1000),
    100,
    "checkpoints that a session keeps, the current one included; older ones are thinned out evenly",
  ),
  checkpointBytesPerSession: option(
    byteSize(0, MAX_BYTES),
    "64MiB",
    "bytes that the states of one session's checkpoints may take",
  ),
  personas: option(
    fileList(),
    [],
    "persona that requests may begin from: an exported session, or an RWKV-7's tuned state; may be repeated",
    { flag: "--persona", shownDefault: "none" },
  ),
  stateSecret: optional(
    secret(),
    "secret that signs the states which requests give and take; the same for all servers that share them",
    { shownDefault: "a new one at each start" },
  ),
  prefixBytes: option(
    byteSizeOrAuto(0, MAX_BYTES),
    "auto",
    "memory for the prefix cache; 0 disables it; auto is 256MiB, or less if memory is short",
  ),
  prefixScope: option(
    oneOf("key", "all"),
    "key",
    "who may reuse a cached prefix: requests with the same API key, or all",
    { needs: ["prefixBytes"] },
  ),
  prefixDiskBytes: option(
    byteSize(0, MAX_BYTES),
    0,
    "disk space for cached prefixes in the store's folder; 0 for none",
    { needs: ["storeDir", "prefixBytes"] },
  ),
  sharePrefixes: option(boolean(), false, "store cached prefixes on the Valkey server too, for all replicas", {
    needs: ["valkeyUrl", "prefixBytes"],
  }),
  apiKeys: option(apiKeyList(), [], "accepted bearer token; may be repeated; without any, the server is open to all", {
    flag: "--api-key",
    shownDefault: "none",
  }),
  allowedHosts: option(
    hostList(),
    [],
    "host name that requests may use if no API key is required; may be repeated; * for any",
    { flag: "--allowed-host", shownDefault: "--host and this machine's own names" },
  ),
  corsOrigins: option(originList(), [], "origin that browsers may call from; may be repeated; * for any", {
    flag: "--cors-origin",
    shownDefault: "none",
  }),
  rootPath: option(
    urlPath(),
    "",
    "path under which a proxy serves this server, such as /llm; the proxy may strip it or not",
    { shownDefault: "none" },
  ),
  metricsNeedKey: option(boolean(), false, "require an API key for /metrics too"),
  trustRequestTemplates: option(boolean(), false, "let requests bring their own chat_template, which is a program"),
  reasoning: option(
    oneOf("auto", "off", "think", "thinking", "mistral", "cohere"),
    "auto",
    "tags around the reasoning in answers to chats; auto takes those that the chat template has, if any",
  ),
  toolCallParser: option(
    oneOf("auto", "hermes", "llama3_json", "mistral", "json"),
    "auto",
    "how answers to chats call tools; auto takes what the chat template shows, or json",
  ),
  heartbeatMs: option(duration(100, 3_600_000), 15_000, "silence on a stream after which a heartbeat is sent"),
  streamGapMs: option(
    duration(0, 1000),
    16,
    "longest time to collect a stream's tokens for one write, three times that under load; 0 for none",
  ),
  resumeMs: option(
    duration(0, 3_600_000),
    15_000,
    "time that a stored response runs on for a client that lost its stream",
  ),
  resumeBytes: option(byteSize(0, 2 ** 40), "1MiB", "text that such a response may run ahead by before it is paused"),
  backgroundMs: option(duration(1, MAX_INT32), 3_600_000, "longest time that a background response may take"),
  drainMs: option(
    duration(0, 3_600_000),
    0,
    "time after SIGTERM when /ready answers 503 and requests are still served, for balancers to notice",
  ),
  shutdownMs: option(duration(0, 3_600_000), 8000, "time that running requests get to finish on SIGTERM"),
  allowNonFinite: option(boolean(), false, "compile even if some weights are NaN or infinite"),
  cacheDir: required(path("<dir>", "a folder"), "~/.cache/densemamba", "folder of compiled models and kernels"),
  logLevel: option(
    oneOf("trace", "debug", "info", "warn", "error", "fatal", "silent"),
    "info",
    "least severe level to log: trace, debug, info, warn, error, fatal, silent",
    { argument: "<level>" },
  ),
});

/** As they are given. */
export type Options = Readonly<z.output<typeof configSchema>>;
export type ConfigKey = keyof Options;

export interface Config extends Omit<Options, "model"> {
  /** The folder or file of the one model that is served, or of the first. */
  readonly model: string;
  /** Served beside it. */
  readonly otherModels: readonly ModelSource[];
}

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
  readonly isRepeatable: boolean;
  /** The value is a path, in which `~` is expanded. */
  readonly isPath: boolean;
  /** Not to be shown. May also be in a file that the variable with `_FILE` behind it names. */
  readonly isSecret: boolean;
  /** Options without which this one has no effect. */
  readonly needs: readonly ConfigKey[];
}

export const configOptions: readonly ConfigOption[] = Object.entries(configSchema.shape).map(([key, kind]) => {
  // As `option`, `optional` and `required` have set it.
  const meta = kind.meta() as unknown as OptionMeta;
  const { flag, argument, description, shownDefault, isPath = false, isSecret = false, needs = [] } = meta;
  return {
    key: key as ConfigKey,
    flag: flag ?? `--${words(key).join("-")}`,
    argument,
    variable: ENVIRONMENT_PREFIX + words(key).join("_").toUpperCase(),
    description,
    shownDefault,
    isRepeatable: kind instanceof z.ZodPrefault && Array.isArray(kind.def.defaultValue),
    isPath,
    isSecret,
    needs: needs as readonly ConfigKey[],
  };
});

interface OptionMeta extends KindMeta {
  /** Default: the key's own name. */
  readonly flag?: string;
  readonly description: string;
  readonly shownDefault: string;
  readonly needs?: readonly string[];
}

type More = Partial<Omit<OptionMeta, "description">>;

/** An option with a default, which is given as a user would. */
function option<Kind extends z.ZodType>(kind: Kind, fallback: unknown, description: string, more: More = {}) {
  const meta = { ...kind.meta(), shownDefault: String(fallback), description, ...more };
  return kind.prefault(fallback as z.input<Kind> & {}).meta(meta);
}

function optional<Kind extends z.ZodType>(kind: Kind, description: string, more: More = {}) {
  return kind.optional().meta({ ...kind.meta(), shownDefault: "none", description, ...more });
}

/** An option whose default depends on the environment: `load.ts` fills it in. */
function required<Kind extends z.ZodType>(kind: Kind, shownDefault: string, description: string) {
  return kind.meta({ ...kind.meta(), shownDefault, description });
}

/** `maxBatch` → [max, batch] */
function words(key: string): string[] {
  return key.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`).split(" ");
}
