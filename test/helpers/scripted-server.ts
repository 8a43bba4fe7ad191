/**
 * A server on a real port whose model says what it is told to: everything but the engine is real,
 * with a tokenizer of bytes and any chat template.
 */
import { randomUUID } from "node:crypto";
import { Generator } from "../../src/generation/generator.ts";
import { createApp } from "../../src/server/app.ts";
import { listen } from "../../src/server/listen.ts";
import { Responses } from "../../src/server/responses/responses.ts";
import { MemoryStore } from "../../src/sessions/stores/memory-store.ts";
import { loadTokenizer } from "../../src/tokenizer/load.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { fakeManifest } from "./fake-runner.ts";
import { ScriptedEngine } from "./scripted-engine.ts";
import { createTestServer } from "./server-deps.ts";
import { byteLevelJson, writeTokenizer } from "./tiny-tokenizers.ts";

const EOS = 0;
const VOCAB_SIZE = 400;

export interface ScriptedServer extends AsyncDisposable {
  readonly url: string;
  readonly tokenizer: Tokenizer;
  readonly engine: ScriptedEngine;
  /** What the model says next, one text an answer; the last one again and again. */
  says(...answers: string[]): Promise<void>;
  /** What it read last, all of it. */
  lastPrompt(): string;
  /** How many of those tokens a state had read. */
  lastPosition(): number;
  post(path: string, body: object): Promise<Response>;
}

/** @param special further special tokens, by their text */
export async function startScriptedServer(
  chatTemplate?: string,
  { special = [] }: { readonly special?: readonly string[] } = {},
): Promise<ScriptedServer> {
  const json = byteLevelJson();
  const tokens = json.added_tokens as { id: number }[];
  const firstId = Math.max(...tokens.map(({ id }) => id)) + 1;
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  tokens.push(...special.map((content, i) => ({ ...flags, content, id: firstId + i })));
  const config = { eos_token: "<|endoftext|>", ...(chatTemplate !== undefined && { chat_template: chatTemplate }) };
  const tokenizer = (await loadTokenizer(await writeTokenizer({ json, config })))!;

  let answers: (readonly number[])[] = [[EOS]];
  let numAnswered = 0;
  const engine = new ScriptedEngine(() => ({ tokenIds: answers[Math.min(numAnswered++, answers.length - 1)]! }));
  engine.numOvershot = 1;
  const { deps } = createTestServer();
  const newId = () => randomUUID().replaceAll("-", "");
  const generator = new Generator({
    engine,
    tokenizer,
    manifest: { ...fakeManifest(VOCAB_SIZE), eosTokenIds: [EOS] },
    store: new MemoryStore({ maxBytes: 1e8 }),
    limits: { maxPromptTokens: 10_000, maxOutputTokens: 2000 },
    newId,
    nowMs: Date.now,
  });
  const realDeps = { ...deps, newId, generator };
  const responses = new Responses(realDeps);
  const listener = await listen({
    ...{ app: createApp(realDeps, responses), deps: realDeps, responses },
    ...{ host: "127.0.0.1", port: 0 },
  });
  const url = `http://127.0.0.1:${listener.port}`;
  return {
    url,
    tokenizer,
    engine,
    async says(...texts) {
      numAnswered = 0;
      answers = await Promise.all(texts.map(async (text) => [...(await tokenizer.encodeContinuation(text))!, EOS]));
    },
    lastPrompt() {
      const { resume, promptIds } = engine.requests.at(-1)!;
      return tokenizer.decode([...(resume?.tokenIds ?? []), ...promptIds], { skipSpecialTokens: false });
    },
    lastPosition: () => engine.requests.at(-1)!.resume?.position ?? 0,
    post: (path, body) =>
      fetch(url + path, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      }),
    [Symbol.asyncDispose]: async () => {
      await listener.close(0);
      generator.close();
    },
  };
}
