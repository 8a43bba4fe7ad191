/** The servers that a load goes to: those that run already, or ours and llama.cpp's, started on the same weights. */
import { basename } from "node:path";
import { DenseMambaError } from "../../errors.ts";
import { peersDir } from "../peers/contenders.ts";
import { LLAMA_CPP_PYTHON, llamaTools } from "../peers/install.ts";
import { startLlamaServer } from "../peers/llama-cpp.ts";
import { prepareModel } from "../peers/same-weights.ts";
import { type Rig, randomCheckpoint, type ShapeName, serveFlags } from "../rig.ts";
import { ServerProcess } from "../server-process.ts";
import type { NamedTarget } from "./server-bench.ts";

export interface TargetsOptions {
  readonly rig: Rig;
  /** Of servers that run. None: our own is started. */
  readonly urls: readonly string[];
  readonly apiKey: string | undefined;
  /** For our own server, unless a shape of random weights is asked for. */
  readonly modelDir: string;
  readonly maxBatch: number;
  readonly shape: ShapeName | undefined;
  /** llama.cpp's server too, which needs a shape that it has. */
  readonly withPeer: boolean;
  readonly version: string;
}

export interface OpenTargets {
  readonly targets: readonly NamedTarget[];
  readonly modelName: string;
  readonly versions: Readonly<Record<string, string>>;
  /** Stops what was started. */
  close(): Promise<void>;
}

/** @throws `invalid_value` for a URL that does not list its models, or for a peer without a build or a shape */
export async function openTargets(options: TargetsOptions): Promise<OpenTargets> {
  return options.urls.length > 0 ? runningTargets(options) : startTargets(options);
}

async function runningTargets({ urls, apiKey }: TargetsOptions): Promise<OpenTargets> {
  const targets = await Promise.all(
    urls.map(async (baseUrl): Promise<NamedTarget> => {
      const model = await firstModel(baseUrl, apiKey);
      return { name: new URL(baseUrl).host, baseUrl, model, ...(apiKey === undefined ? {} : { apiKey }) };
    }),
  );
  const modelName = [...new Set(targets.map(({ model }) => model))].join(", ");
  return { targets, modelName, versions: {}, close: async () => {} };
}

async function startTargets(options: TargetsOptions): Promise<OpenTargets> {
  const { rig, shape, withPeer, maxBatch } = options;
  const started: ServerProcess[] = [];
  const targets: NamedTarget[] = [];
  const close = async () => {
    for (const server of started) await server.stop();
  };
  const add = async (name: string, starting: Promise<ServerProcess>) => {
    const server = await starting;
    started.push(server);
    targets.push({ name, baseUrl: server.baseUrl });
  };
  try {
    const modelDir = shape === undefined ? options.modelDir : await randomCheckpoint(rig.cacheDir, shape);
    const ours = ["--model", modelDir, "--precision", "int8", "--max-batch", `${maxBatch}`, "--max-queue", "100000"];
    await add("densemamba", ServerProcess.startOwn([...ours, ...serveFlags(rig)]));
    const versions: Record<string, string> = { densemamba: options.version };
    if (withPeer) {
      await add("llama-server", startPeer(options));
      versions["llama.cpp"] = `of llama-cpp-python ${LLAMA_CPP_PYTHON}`;
    }
    return { targets, modelName: `${basename(modelDir)} in 8 bits`, versions, close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function startPeer({ rig, shape, maxBatch }: TargetsOptions): Promise<ServerProcess> {
  const tools = llamaTools(peersDir(rig.cacheDir));
  if (tools === undefined) {
    throw new DenseMambaError(
      "invalid_value",
      "--peer needs llama.cpp: npm run bench:peers -- --install-only builds it",
    );
  }
  if (shape === undefined) {
    throw new DenseMambaError("invalid_value", "--peer needs --shape: random weights that both sides can run");
  }
  const weights = await prepareModel(rig.cacheDir, shape, tools);
  return startLlamaServer({ tools, ggufPath: weights.gguf.int8, threads: rig.threads }, maxBatch);
}

/** @throws `invalid_value` if the server does not say what it serves */
async function firstModel(baseUrl: string, apiKey: string | undefined): Promise<string> {
  const headers = apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` };
  const url = `${baseUrl.replace(/\/+$/, "")}/v1/models`;
  try {
    const response = await fetch(url, { headers });
    const { data } = (await response.json()) as { data?: readonly { id?: unknown }[] };
    const id = data?.[0]?.id;
    if (typeof id === "string") return id;
    throw new Error(`HTTP ${response.status} without a model`);
  } catch (cause) {
    throw new DenseMambaError("invalid_value", `--url ${baseUrl}: ${url} gave ${String(cause)}`, { cause });
  }
}
