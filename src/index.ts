/**
 * The package as a library: a model that generates, or a whole server, in the caller's own process.
 * Options are those of docs/configuration.md, by their keys; the environment is not read. See
 * docs/library.md.
 */
import { createGenerator, requireTokenizer, startEngine } from "./app/compose.ts";
import { loadModel as load } from "./app/load-model.ts";
import { openLog } from "./app/log.ts";
import { bytesOf, memoryLimit, slotBytesOf, withinMemory } from "./app/machine.ts";
import { requireSingleModel, withModelFolders, withModelsInside } from "./app/model-folder.ts";
import { checkAddress, openServer } from "./app/server.ts";
import { openStores } from "./app/stores.ts";
import { loadConfig } from "./config/load.ts";
import type { Config, ConfigKey, Options } from "./config/schema.ts";
import { DenseMambaError, type ErrorCode } from "./errors.ts";
import type { Generator } from "./generation/generator.ts";
import { plainRequest } from "./generation/plain-request.ts";

export { DenseMambaError, type ErrorCode };

/** Sizes and times may be text with a unit, as on the command line. */
export type Settings = {
  readonly [Key in Exclude<ConfigKey, "model">]?: Options[Key] | string;
} & {
  /** A folder, or a name on the Hugging Face hub. Default: the packaged one. */
  readonly model?: string | readonly string[];
};

export interface ChatMessage {
  readonly role: "system" | "user" | "assistant" | (string & {});
  readonly content: string;
}

export interface GenerateOptions {
  /** Default: `maxOutputTokens`. */
  readonly maxTokens?: number;
  /** 0 is greedy. Default: 1. */
  readonly temperature?: number;
  /** 0, the default, is all. */
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly repetitionPenalty?: number;
  readonly seed?: number;
  readonly stop?: readonly string[];
  /** A conversation that the prompt continues, and that is stored with the answer. */
  readonly session?: string;
  readonly signal?: AbortSignal;
}

export interface Usage {
  readonly promptTokens: number;
  /** Of the prompt's tokens: those that a stored state had read. */
  readonly cachedTokens: number;
  readonly completionTokens: number;
}

export interface Answer {
  readonly text: string;
  readonly usage: Usage;
}

export interface Model {
  readonly name: string;
  /**
   * The answer's text as it comes; what it cost is the generator's return value. To leave the loop
   * early ends the generation.
   * @throws `DenseMambaError`
   */
  generate(prompt: string | readonly ChatMessage[], options?: GenerateOptions): AsyncGenerator<string, Usage>;
  /** The same as a whole. */
  complete(prompt: string | readonly ChatMessage[], options?: GenerateOptions): Promise<Answer>;
  readonly sessions: Sessions;
  /** Lets nothing run on. Idempotent. */
  close(): Promise<void>;
}

/** @throws `session_exists`, `session_not_found`, `session_busy` */
export interface Sessions {
  create(id: string): Promise<void>;
  /** Another conversation that goes on from here. */
  fork(id: string, newId: string): Promise<void>;
  list(): Promise<string[]>;
  delete(id: string): Promise<void>;
  /** A file that `import` takes, here or elsewhere. */
  export(id: string): Promise<Uint8Array>;
  import(bytes: Uint8Array, id: string): Promise<void>;
}

export interface Server {
  readonly url: string;
  readonly port: number;
  /** Lets running requests finish for `shutdownMs`. Idempotent. */
  close(): Promise<void>;
}

const QUIET = { onProgress: () => undefined, note: () => undefined };
const OWNER = "";

/** @throws `DenseMambaError` */
export async function loadModel(settings: Settings = {}): Promise<Model> {
  const given = requireSingleModel(await withModelFolders(configOf(settings), QUIET.onProgress));
  const tokenizer = await requireTokenizer(given);
  const loaded = await load(given, { ...QUIET, numSlots: given.maxBatch });
  const { manifest } = loaded;
  const config = withinMemory(given, {
    limitBytes: memoryLimit(),
    modelBytes: bytesOf(manifest.files),
    slotBytes: slotBytesOf(loaded, given.maxBatch),
  });
  const { log } = openLog(config.logLevel, process.stderr);
  const stores = await openStores(config, { manifest, log, onDamage: () => undefined, nowMs: Date.now });
  const { conversations: store, unstored, prefixCache } = stores;
  const engine = await startEngine(config, loaded).catch(async (error) => {
    await stores.close();
    throw error;
  });
  const parts = { engine, tokenizer, store, unstored, ...(prefixCache && { prefixCache }) };
  const generator = createGenerator(config, loaded, parts);
  const generate = (prompt: string | readonly ChatMessage[], options: GenerateOptions = {}) =>
    generateText(generator, prompt, options);
  let closing: Promise<void> | undefined;
  return {
    name: config.modelName[0] ?? manifest.name,
    generate,
    async complete(prompt, options) {
      const texts = generate(prompt, options);
      let text = "";
      for (;;) {
        const { done, value } = await texts.next();
        if (done) return { text, usage: value };
        text += value;
      }
    },
    sessions: sessionsOf(generator),
    close() {
      closing ??= engine
        .close({ deadlineMs: 0 })
        .then(() => generator.close())
        .then(() => stores.close());
      return closing;
    },
  };
}

/** Listens, by default on port 8080 of 127.0.0.1. @throws `DenseMambaError`, or the system's error */
export async function createServer(settings: Settings = {}): Promise<Server> {
  const given = configOf(settings);
  await checkAddress(given);
  const config = withModelsInside(await withModelFolders(given, QUIET.onProgress));
  const logging = openLog(config.logLevel, process.stderr);
  const server = await openServer(config, { logging, onProgress: QUIET.onProgress });
  const { port } = server.facts;
  let closing: Promise<void> | undefined;
  return {
    url: `http://${config.host.includes(":") ? `[${config.host}]` : config.host}:${port}`,
    port,
    close() {
      closing ??= server.close().then(() => logging.close());
      return closing;
    },
  };
}

/** A library says nothing unless it is asked to. */
function configOf(settings: Settings): Config {
  return loadConfig({ flags: {}, env: {}, file: { logLevel: "silent", ...settings } });
}

async function* generateText(
  generator: Generator,
  prompt: string | readonly ChatMessage[],
  options: GenerateOptions,
): AsyncGenerator<string, Usage> {
  const { session, signal = new AbortController().signal, ...sampling } = options;
  const key = session === undefined ? undefined : ({ type: "session", id: session } as const);
  const request = plainRequest({
    names: { prompts: "the prompt", maxTokens: "maxTokens", numLogprobs: "log-probabilities" },
    prompt:
      typeof prompt === "string"
        ? { type: "text", text: prompt }
        : { type: "chat", messages: prompt, addGenerationPrompt: true, continueFinalMessage: false },
    maxTokens: undefined,
    temperature: 1,
    topK: 0,
    topP: 1,
    minP: 0,
    repetitionPenalty: 1,
    seed: undefined,
    stop: [],
    ...sampling,
    signal,
  });
  for await (const event of generator.generate({ ...request, ...(key && { resumeFrom: key, saveAs: key }) })) {
    if (event.type === "delta" && event.part !== "call" && event.text !== "") yield event.text;
    if (event.type === "finished" && event.reason === "aborted") {
      throw new DenseMambaError("aborted", "the generation was aborted");
    }
    if (event.type === "usage") {
      const { promptTokens, cachedTokens, completionTokens } = event.usage;
      return { promptTokens, cachedTokens, completionTokens };
    }
  }
  throw new DenseMambaError("aborted", "the generation was cut off");
}

function sessionsOf({ conversations }: Generator): Sessions {
  return {
    async create(id) {
      await conversations.createSession(OWNER, id);
    },
    async fork(id, newId) {
      await conversations.forkSession(OWNER, id, newId);
    },
    async list() {
      return (await conversations.listSessions(OWNER)).map((session) => session.id);
    },
    delete: (id) => conversations.deleteSession(OWNER, id),
    export: (id) => conversations.exportSession(OWNER, id),
    async import(bytes, id) {
      await conversations.importSession(OWNER, bytes, id);
    },
  };
}
