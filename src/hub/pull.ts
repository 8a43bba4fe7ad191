/**
 * Pulls a model from the hub into the cache, as a folder that `--model` accepts. The entry of
 * `hub/`, the only part of the program that sends requests to other machines.
 */
import { setTimeout } from "node:timers/promises";
import type { HubSettings } from "../config/hub.ts";
import { DenseMambaError } from "../errors.ts";
import { readWeightIndex, shardsOf } from "../model/weight-files.ts";
import { describeCache, modelIn, RepoCache } from "./cache.ts";
import { HubClient, type HubFile, HubUnreachable } from "./client.ts";
import { download } from "./download.ts";
import { chooseFiles, findShards, type Part } from "./files.ts";
import { formatModelId, type ModelId } from "./model-id.ts";
import { fetchThrough } from "./proxy.ts";

export interface PullProgress {
  /** Bytes on disk, of `total`. */
  readonly done: number;
  readonly total: number;
  readonly message: string;
}

export interface PullOptions {
  readonly id: ModelId;
  readonly part: Part;
  readonly hub: HubSettings;
  readonly onProgress?: (progress: PullProgress) => void;
  readonly fetch?: typeof fetch;
  readonly sleep?: (ms: number) => Promise<void>;
}

/**
 * The model's folder, or its file if the name has one: from the cache if it is complete there,
 * without using the network; else pulled.
 * @throws `pull_failed`
 */
export async function ensureModel(options: PullOptions): Promise<string> {
  const { id, part, hub } = options;
  return (await new RepoCache(hub.cacheDir, id.repo).find(id, part)) ?? pullModel(options);
}

/**
 * Asks the hub for the revision's current commit, and downloads the missing files.
 * @returns the model's folder, or its file if the name has one
 * @throws `pull_failed` if the hub cannot be reached, refuses, or sends wrong bytes; without a
 * network the message says what the cache has
 */
export async function pullModel(options: PullOptions): Promise<string> {
  const { id, hub } = options;
  if (hub.offline) throw await withCache("HF_HUB_OFFLINE is set", options);
  try {
    const pull = await Pull.prepare(options);
    return await pull.run();
  } catch (error) {
    if (error instanceof HubUnreachable) throw await withCache(error.message, options, error);
    if (error instanceof DenseMambaError && error.code === "invalid_checkpoint") {
      throw new DenseMambaError("pull_failed", `${formatModelId(id)}: ${error.message}`, { cause: error });
    }
    throw error;
  }
}

async function withCache(problem: string, { id, hub }: PullOptions, cause?: unknown): Promise<DenseMambaError> {
  const cached = await describeCache(hub.cacheDir, id);
  return new DenseMambaError("pull_failed", `cannot pull ${formatModelId(id)}: ${problem}; ${cached}`, { cause });
}

type Fetch = typeof globalThis.fetch;

class Pull {
  readonly #id: ModelId;
  readonly #part: Part;
  readonly #client: HubClient;
  readonly #cache: RepoCache;
  readonly #onProgress: (progress: PullProgress) => void;
  readonly #sleep: (ms: number) => Promise<void>;
  /** File → its bytes on disk. */
  readonly #done = new Map<string, number>();
  #total = 0;

  static async prepare(options: PullOptions): Promise<Pull> {
    const { proxy } = options.hub;
    return new Pull({ ...options, fetch: options.fetch ?? (proxy ? await fetchThrough(proxy) : globalThis.fetch) });
  }

  private constructor({ id, part, hub, onProgress, fetch, sleep }: PullOptions & { readonly fetch: Fetch }) {
    this.#id = id;
    this.#part = part;
    this.#client = new HubClient({ endpoint: hub.endpoint, token: hub.token, fetch });
    this.#cache = new RepoCache(hub.cacheDir, id.repo);
    this.#onProgress = onProgress ?? (() => undefined);
    this.#sleep = sleep ?? setTimeout;
  }

  async run(): Promise<string> {
    const commit = await this.#client.commitOf(this.#id);
    const listed = await this.#client.list(this.#id, commit);
    const { files, index } = chooseFiles(this.#id, this.#part, listed);
    await this.#fetchAll(commit, files, index === undefined);
    const dir = this.#cache.snapshotDir(commit);
    if (index !== undefined) {
      const shards = findShards(this.#id, listed, shardsOf(readWeightIndex(dir, index.path)));
      await this.#fetchAll(commit, shards, true);
    }
    await this.#cache.noteRevision(this.#id.revision, commit);
    return modelIn(dir, this.#id);
  }

  /** Not in parallel: that gains little, and an interruption would leave several partial files. */
  async #fetchAll(commit: string, files: readonly HubFile[], isLast: boolean): Promise<void> {
    this.#total += files.reduce((sum, { numBytes }) => sum + numBytes, 0);
    for (const file of files) {
      await download({
        file,
        blobPath: this.#cache.blobPath(file.hash),
        read: (start) => this.#client.read(this.#id, commit, file, start),
        onBytes: (numBytes) => {
          this.#done.set(file.path, numBytes);
          this.#report(isLast);
        },
        sleep: this.#sleep,
      });
      await this.#cache.link(commit, file.path, file.hash);
    }
  }

  /** Only for the last files: the total is not known before the shards are. */
  #report(isLast: boolean): void {
    if (!isLast) return;
    const done = [...this.#done.values()].reduce((sum, numBytes) => sum + numBytes, 0);
    this.#onProgress({ done, total: this.#total, message: `pulling ${formatModelId(this.#id)}` });
  }
}
