/** The servers that a load goes to: those that already run, or one of ours. */
import { basename } from "node:path";
import { DenseMambaError } from "../../errors.ts";
import { type BenchConfig, serveFlags } from "../config.ts";
import { randomCheckpoint, type ShapeName } from "../random-model.ts";
import { ServerProcess } from "../server-process.ts";
import type { NamedTarget, ServerBenchOptions } from "./server-bench.ts";

export interface OpenTargets extends Pick<ServerBenchOptions, "targets" | "modelName" | "versions"> {
  /** Stops what was started. */
  close(): Promise<void>;
}

/** @throws `invalid_value` for a URL that does not list its models */
export async function runningTargets(urls: readonly string[], apiKey: string | undefined): Promise<OpenTargets> {
  const targets = await Promise.all(
    urls.map(async (baseUrl): Promise<NamedTarget> => {
      const model = await firstModel(baseUrl, apiKey);
      return { name: new URL(baseUrl).host, baseUrl, model, ...(apiKey === undefined ? {} : { apiKey }) };
    }),
  );
  const modelName = [...new Set(targets.map(({ model }) => model))].join(", ");
  return { targets, modelName, versions: {}, close: async () => {} };
}

export interface OwnServerOptions {
  readonly config: BenchConfig;
  readonly modelDir: string;
  /** Random weights in place of the model. */
  readonly shape: ShapeName | undefined;
  readonly maxBatch: number;
  readonly version: string;
}

export async function startOwnTarget(options: OwnServerOptions): Promise<OpenTargets> {
  const { config, shape, maxBatch, version } = options;
  const modelDir = shape === undefined ? options.modelDir : await randomCheckpoint(config.cacheDir, shape);
  const flags = ["--model", modelDir, "--precision", "int8", "--max-batch", `${maxBatch}`, "--max-queue", "100000"];
  const server = await ServerProcess.startOwn([...flags, ...serveFlags(config)]);
  return {
    targets: [{ name: "densemamba", baseUrl: server.baseUrl }],
    modelName: `${basename(modelDir)} in 8 bits`,
    versions: { densemamba: version },
    close: () => server.stop(),
  };
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
