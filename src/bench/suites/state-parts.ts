/**
 * What the parts of the state suite share: the house from the engine up to the generator, on stores of their own, without
 * HTTP; and one turn of a conversation, timed.
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import type { Engine } from "../../engine/engine.ts";
import type { GenerationRequest, Prompt } from "../../generation/events.ts";
import { Generator } from "../../generation/generator.ts";
import type { Manifest } from "../../model/artifact.ts";
import { stateBytes } from "../../model/state.ts";
import type { PrefixCache } from "../../prefix/prefix-cache.ts";
import { GREEDY } from "../../sampling/params.ts";
import type { ConversationKey } from "../../sessions/keys.ts";
import { type OpenStoreOptions, openStore } from "../../sessions/stores/open-store.ts";
import type { StateStore } from "../../sessions/stores/store.ts";
import type { TieredStore } from "../../sessions/stores/tiered-store.ts";
import { loadTokenizer } from "../../tokenizer/load.ts";
import type { Tokenizer } from "../../tokenizer/tokenizer.ts";
import { type Rig, withEngine } from "../rig.ts";
import { withScratchDir } from "../scratch.ts";

export interface StateParts {
  readonly engine: Engine;
  readonly manifest: Manifest;
  readonly tokenizer: Tokenizer;
  /** Of one state. */
  readonly stateBytes: number;
  generatorOn(store: StateStore, prefixCache?: PrefixCache): Generator;
}

/** Longer than anything that is read here. */
const MAX_TOKENS = 10_000_000;

export async function withState<T>(rig: Rig, modelDir: string, use: (parts: StateParts) => Promise<T>): Promise<T> {
  const tokenizer = await loadTokenizer(modelDir);
  if (tokenizer === undefined) throw new Error(`${modelDir} has no tokenizer.json, which conversations need`);
  return withEngine(rig, modelDir, (engine, manifest) => {
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
  { cacheDir }: Rig,
  { manifest, stateBytes }: StateParts,
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
      observer: LOUD,
    });
    try {
      return await use(store, dir);
    } finally {
      await store.close();
    }
  });
}

/** A tier that breaks would be measured by not being there. */
const LOUD: OpenStoreOptions["observer"] = {
  onTier: ({ message, isAvailable }) => {
    if (!isAvailable) throw new Error(message);
  },
  onDamage: (message) => {
    throw new Error(message);
  },
};

/** The system forgets what it holds of the file in memory, so that the next read is the disk's. Where there is no `dd`, it does not. */
export function dropFromCache(file: string): boolean {
  const { status } = spawnSync("dd", [`if=${file}`, "iflag=nocache", "count=0"], { stdio: "ignore" });
  return status === 0;
}

export function session(id: string): ConversationKey {
  return { type: "session", id };
}

export interface TurnOptions {
  readonly maxTokens: number;
  readonly resumeFrom?: ConversationKey;
  readonly keepAs?: ConversationKey;
}

/** Greedy, to the length asked for whatever the model would end with. */
export function turnOf(prompt: Prompt, options: TurnOptions): GenerationRequest {
  return {
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

export interface TurnTimes {
  readonly firstTokenMs: number;
  /** Until everything that is kept has been. */
  readonly totalMs: number;
  /** Of the prompt, those that were not read again. */
  readonly cachedTokens: number;
  readonly text: string;
}

export async function runTurn(
  generator: Pick<Generator, "generate">,
  request: GenerationRequest,
  onToken: () => void = () => {},
): Promise<TurnTimes> {
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
  return { firstTokenMs, totalMs: performance.now() - startMs, cachedTokens, text };
}
