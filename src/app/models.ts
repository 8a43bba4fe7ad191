/**
 * Several models behind one address. The first one is loaded at the start, and is the one that
 * requests without a `model` mean. The others are prepared at the start (compiled, with tokenizer
 * and stores) and loaded at their first request; which are in memory decides `model-pool.ts`.
 */
import path from "node:path";
import type { DenseMambaError } from "../errors.ts";
import { Metrics } from "../metrics/metrics.ts";
import type { ServerDeps } from "../server/deps.ts";
import { type ModelEntry, type ModelState, SeveralModels } from "../server/several-models.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { createService, now, requireTokenizer, type Service } from "./compose.ts";
import { type LoadedModel, type LoadOptions, loadModel } from "./load-model.ts";
import type { ServerLog } from "./log.ts";
import type { SizedConfig } from "./machine.ts";
import { loadFailed, type ModelPool } from "./model-pool.ts";

/** Between two tries to prepare a model that could not be. */
const RETRY_MS = 10_000;

export interface OpenModelsOptions extends Omit<LoadOptions, "opensLater"> {
  /** The first one's. */
  readonly tokenizer: Tokenizer;
  readonly logging: Pick<ServerLog, "log" | "numDropped">;
  readonly pool: ModelPool;
  /** Put around each model that is loaded. */
  readonly wrapModel: (model: LoadedModel) => LoadedModel;
}

export interface Models {
  readonly first: Service;
  /** Its own, with the metrics of all models. */
  readonly deps: ServerDeps;
  readonly models: SeveralModels;
  /** All that could be prepared so far. */
  readonly services: () => readonly Service[];
}

/**
 * @param config as `withModelNames` returns it, with sizes for all models together
 * @throws what the first one cannot be served for; others are tried again when they are asked for
 */
export async function openModels(
  config: SizedConfig,
  firstModel: LoadedModel,
  options: OpenModelsOptions,
): Promise<Models> {
  const { tokenizer, logging, pool, wrapModel, ...loading } = options;
  const first = await createService(shareOf(config, config.modelName[0]!), firstModel, { tokenizer, logging, pool });
  const prepare = async (name: string, folder: string): Promise<Service> => {
    // The first model has shown on which device models run.
    const own = { ...config, model: folder, modelName: [name], device: firstModel.device };
    const model = wrapModel(await loadModel(own, { ...loading, opensLater: true }));
    const tokenizer = await requireTokenizer(own, "own");
    return createService(shareOf(own, name), model, { tokenizer, logging, pool, first: first.deps });
  };
  const firstEntry = new Entry(config.modelName[0]!, first, async () => first);
  const others = config.otherModels.map(({ name, path }) => {
    return new Entry(name!, undefined, () => prepare(name!, path));
  });
  const entries = [firstEntry, ...others];
  for (const entry of others) {
    await entry.open().catch((error: DenseMambaError) => {
      logging.log.error({ model: entry.name, error: error.message }, "a model is not served");
    });
  }
  const services = () => entries.flatMap(({ service }) => service ?? []);
  const metrics = {
    contentType: first.metrics.contentType,
    render: () => Metrics.renderAll(services().map((service) => service.metrics)),
  };
  return { first, deps: { ...first.deps, metrics }, models: new SeveralModels(entries), services };
}

/**
 * What one of several models gets: a part of the memory and the disk for states, and a place of its
 * own for them. A single model has all, where it has always been.
 */
function shareOf(config: SizedConfig, name: string): SizedConfig {
  const numModels = 1 + config.otherModels.length;
  if (numModels === 1) return config;
  const { sessionBytes, prefixBytes, storeBytes, prefixDiskBytes, storeDir, valkeyPrefix } = config;
  const share = (bytes: number) => Math.floor(bytes / numModels);
  return {
    ...config,
    sessionBytes: share(sessionBytes),
    prefixBytes: share(prefixBytes),
    storeBytes: Math.max(1, share(storeBytes)),
    prefixDiskBytes: share(prefixDiskBytes),
    storeDir: storeDir && path.join(storeDir, encodeURIComponent(name)),
    valkeyPrefix: `${valkeyPrefix}${name}:`,
  };
}

class Entry implements ModelEntry {
  readonly name: string;
  service: Service | undefined;
  readonly #prepare: () => Promise<Service>;
  #preparing: Promise<Service> | undefined;
  #failure: { readonly error: DenseMambaError; readonly retryAtMs: number } | undefined;

  constructor(name: string, service: Service | undefined, prepare: () => Promise<Service>) {
    this.name = name;
    this.service = service;
    this.#prepare = prepare;
  }

  get state(): ModelState {
    if (this.service === undefined) return { value: "failed", error: this.#failure?.error.message ?? "" };
    const { engine, pooled } = this.service;
    const { status } = engine;
    if (status.state === "ready") return { value: "loaded" };
    if (status.state === "starting") return { value: "loading" };
    if (status.state === "recovering") return { value: "failed", error: status.error };
    const failure = pooled?.failure;
    return failure === undefined ? { value: "unloaded" } : { value: "failed", error: failure.message };
  }

  /** @throws `model_load_failed`, also without a try for some time after a failure */
  open(): Promise<Service> {
    if (this.service !== undefined) return Promise.resolve(this.service);
    const waitMs = (this.#failure?.retryAtMs ?? 0) - now();
    if (this.#failure !== undefined && waitMs > 0) {
      return Promise.reject(loadFailed(this.name, this.#failure.error.cause, waitMs));
    }
    this.#preparing ??= this.#prepareOnce();
    return this.#preparing;
  }

  keepAlive(ms: number | undefined): void {
    this.service?.pooled?.keepAlive(ms);
  }

  async #prepareOnce(): Promise<Service> {
    try {
      this.service = await this.#prepare();
      return this.service;
    } catch (cause) {
      const error = loadFailed(this.name, cause);
      this.#failure = { error, retryAtMs: now() + RETRY_MS };
      throw error;
    } finally {
      this.#preparing = undefined;
    }
  }
}
