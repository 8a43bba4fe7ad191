/**
 * Conversations without HTTP: the parts of a server from the engine up to the generator, on stores
 * that a suite chooses, and one turn, timed.
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import type { Engine } from "../engine/engine.ts";
import type { GenerationRequest, Prompt } from "../generation/events.ts";
import { Generator } from "../generation/generator.ts";
import type { Manifest } from "../model/artifact.ts";
import { stateBytes } from "../model/state.ts";
import type { PrefixCache } from "../prefix/prefix-cache.ts";
import { GREEDY } from "../sampling/params.ts";
import type { ConversationKey } from "../sessions/conversation-store.ts";
import { type OpenStoreOptions, openStore } from "../sessions/stores/open-store.ts";
import type { StateStore } from "../sessions/stores/store.ts";
import type { TieredStore } from "../sessions/stores/tiered-store.ts";
import { loadTokenizer } from "../tokenizer/load.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { withScratchDir } from "./cleanup.ts";
import { type BenchConfig, withEngine } from "./config.ts";
import { randomPrompt } from "./random-model.ts";

export interface ConversationParts {
  readonly engine: Engine;
  readonly manifest: Manifest;
  readonly tokenizer: Tokenizer;
  /** Of one state. */
  readonly stateBytes: number;
  generatorOn(store: StateStore, prefixCache?: PrefixCache): Generator;
}

/** More than any suite reads. */
const MAX_TOKENS = 10_000_000;

export async function withConversations<T>(
  config: BenchConfig,
  modelDir: string,
  use: (parts: ConversationParts) => Promise<T>,
): Promise<T> {
  const tokenizer = await loadTokenizer(modelDir);
  if (tokenizer === undefined) throw new Error(`${modelDir} has no tokenizer.json, which conversations need`);
  return withEngine(config, modelDir, (engine, manifest) => {
    let numIds = 0;
    const common = {
      engine,
      tokenizer,
      manifest,
      limits: { maxPromptTokens: MAX_TOKENS, maxOutputTokens: MAX_TOKENS },
      newId: () => `s${numIds++}`,
      nowMs: Date.now,
    };
    return use({
      engine,
      manifest,
      tokenizer,
      stateBytes: stateBytes(manifest.state),
      generatorOn: (store, prefixCache) => new Generator({ ...common, store, ...(prefixCache && { prefixCache }) }),
    });
  });
}

/** A store with a disk tier in a folder of its own, removed afterwards. */
export function withDiskStore<T>(
  { cacheDir }: BenchConfig,
  { manifest, stateBytes }: ConversationParts,
  options: { readonly memoryBytes: number; readonly diskBytes: number },
  use: (store: TieredStore, dir: string) => Promise<T>,
): Promise<T> {
  return withScratchDir(cacheDir, "states", async (scratch) => {
    const dir = join(scratch, "store");
    const store = await openStore({
      memoryBytes: options.memoryBytes,
      disk: { dir, maxBytes: options.diskBytes },
      model: { modelHash: manifest.modelHash, stateBytes },
      nowMs: Date.now,
      observer: FAILING,
    });
    try {
      return await use(store, dir);
    } finally {
      await store.close();
    }
  });
}

/** A tier that breaks must end the run: figures without it would look good. */
const FAILING: OpenStoreOptions["observer"] = {
  onTier: ({ message, isAvailable }) => {
    if (!isAvailable) throw new Error(message);
  },
  onDamage: (message) => {
    throw new Error(message);
  },
};

/**
 * Makes the system forget what it has of a file in memory, so that the next read is the disk's.
 * Does nothing without `dd`.
 */
export function dropFromCache(file: string): void {
  spawnSync("dd", [`if=${file}`, "iflag=nocache", "count=0"], { stdio: "ignore" });
}

export function session(id: string): ConversationKey {
  return { type: "session", id };
}

/** A prompt of token ids, another one for each seed. */
export function tokens(length: number, seed: number): Prompt {
  return { type: "tokens", tokenIds: randomPrompt(length, seed) };
}

/** For a turn that only goes on. */
export const NOTHING_NEW: Prompt = { type: "tokens", tokenIds: [] };

export interface TurnOptions {
  readonly maxTokens: number;
  readonly resumeFrom?: ConversationKey;
  readonly saveAs?: ConversationKey;
}

/** Greedy, and always of the length asked for. */
export function turnOf(prompt: Prompt, options: TurnOptions): GenerationRequest {
  return {
    names: { prompts: "prompt", maxTokens: "max_tokens", numLogprobs: "logprobs" },
    prompts: [prompt],
    numChoices: 1,
    bestOf: 1,
    sampling: GREEDY,
    minTokens: 0,
    stopStrings: [],
    stopTokenIds: [],
    ignoreEos: true,
    includeStopString: false,
    skipSpecialTokens: true,
    addSpecialTokens: false,
    echo: false,
    owner: "",
    signal: new AbortController().signal,
    ...options,
  };
}

export interface Turn {
  readonly firstTokenMs: number;
  /** Of the prompt, those that were not read again. */
  readonly cachedTokens: number;
  readonly text: string;
}

export async function runTurn(
  generator: Pick<Generator, "generate">,
  request: GenerationRequest,
  onToken: () => void = () => {},
): Promise<Turn> {
  const startMs = performance.now();
  let firstTokenMs = Number.NaN;
  let cachedTokens = 0;
  let text = "";
  for await (const event of generator.generate(request)) {
    if (event.type === "delta") {
      if (Number.isNaN(firstTokenMs)) firstTokenMs = performance.now() - startMs;
      for (const _ of event.tokenIds) onToken();
      text += event.text;
    } else if (event.type === "usage") cachedTokens = event.usage.cachedTokens;
  }
  return { firstTokenMs, cachedTokens, text };
}
