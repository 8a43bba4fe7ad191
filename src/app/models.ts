/**
 * Several models behind one address. The first one is loaded at the start, and is the one that
 * requests without a `model` mean. The others are prepared at the start (compiled, with tokenizer
 * and stores) and loaded at their first request; `model-pool.ts` decides which are in memory.
 */
import path from "node:path";
import type { DenseMambaError } from "../errors.ts";
import { Metrics } from "../metrics/metrics.ts";
import type { ServerDeps } from "../server/deps.ts";
import { type ModelEntry, type ModelState, SeveralModels } from "../server/several-models.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { createService, now, requireTokenizer, type Service } from "./compose.ts";
import { LoadFailures } from "./load-failures.ts";
import { type LoadedModel, type LoadOptions, loadModel } from "./load-model.ts";
import type { ServerLog } from "./log.ts";
import type { SizedConfig } from "./machine.ts";
import type { ModelPool } from "./model-pool.ts";

export interface OpenModelsOptions extends Omit<LoadOptions, "opensLater" | "cachedOnly"> {
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
  const prepare = async (name: string, folder: string, isFirstTry: boolean): Promise<Service> => {
    // The first model has shown on which device models run.
    const own = { ...config, model: folder, modelName: [name], device: firstModel.device };
    const model = wrapModel(await loadModel(own, { ...loading, opensLater: true, cachedOnly: !isFirstTry }));
    const tokenizer = await requireTokenizer(own, "own");
    return createService(shareOf(own, name), model, { tokenizer, logging, pool, first: first.deps });
  };
  const firstEntry = new Entry(config.modelName[0]!, first, async () => first);
  const others = config.otherModels.map(({ name, path }) => {
    return new Entry(name!, undefined, (isFirstTry) => prepare(name!, path, isFirstTry));
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
  readonly #prepare: (isFirstTry: boolean) => Promise<Service>;
  readonly #failures: LoadFailures;
  #preparing: Promise<Service> | undefined;

  constructor(name: string, service: Service | undefined, prepare: (isFirstTry: boolean) => Promise<Service>) {
    this.name = name;
    this.service = service;
    this.#prepare = prepare;
    this.#failures = new LoadFailures(name, now);
  }

  get state(): ModelState {
    const status = this.service?.engine.status;
    if (status?.state === "ready") return { value: "loaded" };
    if (status?.state === "starting") return { value: "loading" };
    if (status?.state === "recovering") return { value: "failed", error: status.error };
    const failures = this.service?.pooled?.failures ?? this.#failures;
    return failures.error === undefined ? { value: "unloaded" } : { value: "failed", error: failures.error.message };
  }

  get isRefusing(): boolean {
    return (this.service?.pooled?.failures ?? this.#failures).isPausing;
  }

  /** @throws `model_load_failed`, also without a try for some time after a failure */
  async open(): Promise<Service> {
    if (this.service !== undefined) return this.service;
    this.#failures.check();
    this.#preparing ??= this.#prepareOnce();
    return this.#preparing;
  }

  keepAlive(ms: number | undefined): void {
    this.service?.pooled?.keepAlive(ms);
  }

  async #prepareOnce(): Promise<Service> {
    try {
      this.service = await this.#prepare(this.#failures.error === undefined);
      return this.service;
    } catch (cause) {
      throw this.#failures.add(cause);
    } finally {
      this.#preparing = undefined;
    }
  }
}
