/**
 * Figures of structured output. `validity COUNT`: that many answers of the default model over the
 * schemas of the tests, at temperatures from 0 to 2, parsed and validated. `speed TOKENIZER`: what
 * masks cost beside answers without them, with random weights of the shape mamba-130m and that
 * tokenizer's vocabulary, and how much sooner forced tokens end an object.
 */
import { tmpdir } from "node:os";
import path from "node:path";
import { Ajv2020 } from "ajv/dist/2020.js";
import formats from "ajv-formats";
import { randomCheckpoint } from "../src/bench/random-model.ts";
import { ensureArtifact } from "../src/compiler/artifact-cache.ts";
import { Engine } from "../src/engine/engine.ts";
import type { SequenceRequest } from "../src/engine/sequence.ts";
import type { Constraint } from "../src/grammar/constraint.ts";
import { Grammars } from "../src/grammar/grammars.ts";
import { openRunner } from "../src/runtime/open.ts";
import type { NextTokens, TokenMatcher } from "../src/sampling/token-matcher.ts";
import { loadTokenizer } from "../src/tokenizer/load.ts";
import { SCHEMAS } from "../test/fixtures/json-schemas.ts";

const now = () => performance.now();
const cacheDir = path.join(tmpdir(), "densemamba-structured-output");
const MAX_BATCH = 32;

async function startEngine(modelDir: string, precision: "f32" | "int8"): Promise<Engine> {
  const { dir } = await ensureArtifact({ modelDir, precision, cacheDir });
  const engine = new Engine({
    openRunner: () => openRunner("native", { artifactDir: dir, numSlots: MAX_BATCH, numThreads: 2, device: "cpu" }),
    limits: { maxBatch: MAX_BATCH, maxQueue: 100_000, prefillChunk: 64 },
    observer: { onStep() {}, onSequenceEnd() {}, onStatus() {} },
    now,
    random: Math.random,
  });
  await engine.start();
  return engine;
}

function request(seed: number, temperature: number, maxTokens: number, matcher?: TokenMatcher): SequenceRequest {
  return {
    promptIds: [3 + (seed % 50), 7, 11],
    sampling: {
      ...{ temperature, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, presencePenalty: 0, frequencyPenalty: 0 },
      ...{ logitBias: new Map(), seed },
    },
    maxTokens,
    minTokens: 0,
    stopTokenIds: new Set<number>(),
    signal: new AbortController().signal,
    ...(matcher && { matcher }),
  };
}

async function finish(engine: Engine, requests: readonly SequenceRequest[]): Promise<Finished[]> {
  const startMs = now();
  return Promise.all(
    engine.submit(requests).map(async ({ events }) => {
      const tokenIds: number[] = [];
      let reason = "";
      for await (const event of events) {
        if (event.type === "token") tokenIds.push(event.tokenId);
        else if (event.type === "finished") reason = event.reason;
      }
      return { tokenIds, reason, ms: now() - startMs };
    }),
  );
}

interface Finished {
  readonly tokenIds: readonly number[];
  readonly reason: string;
  readonly ms: number;
}

async function validity(count: number): Promise<void> {
  const modelDir = path.join(import.meta.dirname, "../models/densemamba-tales-4m");
  const engine = await startEngine(modelDir, "f32");
  const tokenizer = (await loadTokenizer(modelDir))!;
  const grammars = new Grammars(tokenizer, { now });
  const ajv = new Ajv2020({ strict: false });
  formats.default(ajv);
  const names = Object.keys(SCHEMAS);
  const found = { complete: 0, cut: 0, wrong: 0 };
  for (const [index, name] of names.entries()) {
    const schema = SCHEMAS[name]!;
    const grammar = grammars.compile({ type: "json_schema", schema: schema as never, strict: false });
    const open = await grammars.open(grammar, "", []);
    const validate = ajv.compile(schema);
    const size = Math.ceil((count * (index + 1)) / names.length) - Math.ceil((count * index) / names.length);
    const requests = Array.from({ length: size }, (_, i) =>
      request(1000 * index + i, (2 * i) / (size - 1), 100, open()),
    );
    for (const { tokenIds, reason } of await finish(engine, requests)) {
      const text = tokenizer.decode(tokenIds, { skipSpecialTokens: true });
      if (reason === "length") found.cut++;
      else if (validates(text, validate)) found.complete++;
      else {
        found.wrong++;
        console.log(`${name}: ${text}`);
      }
    }
    console.log(`${name}: ${JSON.stringify(found)}`);
  }
  await engine.close({ deadlineMs: 0 });
  process.exitCode = found.wrong > 0 ? 1 : 0;
}

function validates(text: string, validate: (value: unknown) => boolean): boolean {
  try {
    return validate(JSON.parse(text));
  } catch {
    return false;
  }
}

/** The same tokens, each by a mask that allows it alone. */
class OneByOne implements TokenMatcher {
  readonly #inner: TokenMatcher;
  readonly #numWords: number;
  #forced: readonly number[] = [];

  constructor(inner: TokenMatcher, vocabSize: number) {
    this.#inner = inner;
    this.#numWords = Math.ceil(vocabSize / 32);
  }
  get next(): NextTokens | undefined {
    const { next } = this.#inner;
    if (next?.type === "forced" && this.#forced.length === 0) this.#forced = next.tokenIds;
    const [id] = this.#forced;
    if (id === undefined) return next;
    const mask = new Int32Array(this.#numWords);
    mask[id >> 5] = 1 << (id & 31);
    return { type: "allowed", mask };
  }
  accept(tokenId: number): void {
    if (this.#forced.length === 0) this.#inner.accept(tokenId);
    else if (this.#forced.length === 1) this.#inner.acceptForced();
    this.#forced = this.#forced.slice(1);
  }
  acceptForced(): void {}
  waitBriefly(): void {
    this.#inner.waitBriefly();
  }
  onceKnown(callback: () => void): void {
    this.#inner.onceKnown(callback);
  }
  close(): void {
    this.#inner.close();
  }
}

async function speed(tokenizerDir: string, numRounds = 7): Promise<void> {
  const engine = await startEngine(await randomCheckpoint(cacheDir, "mamba-130m"), "int8");
  const tokenizer = (await loadTokenizer(tokenizerDir))!;
  const grammars = new Grammars(tokenizer, { now });
  const opener = async (constraint: Constraint) => grammars.open(grammars.compile(constraint), "", []);
  const strings = await opener({
    type: "json_schema",
    schema: { type: "array", items: { type: "object", additionalProperties: { type: "string" } }, minItems: 1000 },
    strict: false,
  });
  const keys = Array.from({ length: 12 }, (_, i) => [`measurement number ${i + 1}`, { enum: [true, false] }]);
  const fixed = await opener({
    type: "json_schema",
    schema: { type: "object", properties: Object.fromEntries(keys), required: keys.map(([key]) => key as string) },
    strict: true,
  });
  const many = (count: number, length: number, open?: () => TokenMatcher) =>
    Array.from({ length: count }, (_, i) => request(i, 1, length, open?.()));
  const rate = (answers: readonly Finished[]) => {
    return answers.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0) / Math.max(...answers.map(({ ms }) => ms));
  };
  const runs: Record<string, () => Promise<number>> = {
    "1 free": async () => rate(await finish(engine, many(1, 48))),
    "1 held": async () => rate(await finish(engine, many(1, 48, strings))),
    "32 free": async () => rate(await finish(engine, many(32, 24))),
    "32 held": async () => rate(await finish(engine, many(32, 24, strings))),
    "31 free of 32 free": async () => rate((await finish(engine, many(32, 24))).slice(0, 31)),
    "31 free beside 1 held": async () => {
      return rate((await finish(engine, [...many(31, 24), request(31, 1, 24, strings())])).slice(0, 31));
    },
    "object, one by one": async () => {
      return (
        1000 /
        (
          await finish(
            engine,
            many(1, 400, () => new OneByOne(fixed(), tokenizer.vocabSize)),
          )
        )[0]!.ms
      );
    },
    "object, forced": async () => 1000 / (await finish(engine, many(1, 400, fixed)))[0]!.ms,
  };
  const rates: Record<string, number[]> = {};
  const compare = (what: string, name: string, base: string) => {
    const ratios = rates[name]!.map((value, round) => value / rates[base]![round]!).sort((a, b) => a - b);
    const [least, middle, most] = [0, ratios.length >> 1, ratios.length - 1].map((i) => ratios[i]!.toFixed(3));
    console.log(`${what}: ${middle} (${least} to ${most})`);
  };
  for (let round = 0; round <= numRounds; round++) {
    // The first warms up.
    for (const [name, run] of Object.entries(runs)) {
      const value = await run();
      if (round > 0) rates[name] = [...(rates[name] ?? []), value];
    }
    if (round === 0) continue;
    console.log(`round ${round}`);
    compare("one held stream, of a free one's rate", "1 held", "1 free");
    compare("32 held streams, of free ones' rate", "32 held", "32 free");
    compare("31 free streams beside a held one, of beside a free one", "31 free beside 1 held", "31 free of 32 free");
    compare("an object of fixed keys, forced, of one by one", "object, forced", "object, one by one");
  }
  await engine.close({ deadlineMs: 0 });
}

const [command, argument] = process.argv.slice(2);
if (command === "validity") await validity(Number(argument ?? 10_000));
else if (command === "speed" && argument !== undefined) await speed(argument);
else console.log("usage: tsx scripts/structured-output.ts validity [COUNT] | speed TOKENIZER_FOLDER");
process.exit();
