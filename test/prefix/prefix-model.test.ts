import { afterAll, beforeAll, expect, test } from "vitest";
import { ensureArtifact } from "../../src/compiler/artifact-cache.ts";
import { Engine } from "../../src/engine/engine.ts";
import type { GenerationRequest } from "../../src/generation/events.ts";
import { Generator } from "../../src/generation/generator.ts";
import { stateBytes } from "../../src/model/state.ts";
import { PrefixCache } from "../../src/prefix/prefix-cache.ts";
import { openRunner } from "../../src/runtime/open.ts";
import { GREEDY } from "../../src/sampling/params.ts";
import { MemoryStore } from "../../src/sessions/stores/memory-store.ts";
import { loadTokenizer } from "../../src/tokenizer/load.ts";
import { chat, fold, request, text } from "../helpers/generation-harness.ts";
import { DEFAULT_MODEL_DIR } from "../helpers/real-server.ts";
import { SHARED_ARTIFACTS } from "../helpers/shared-artifacts.ts";

const SAMPLED = { ...GREEDY, temperature: 0.9, topP: 0.95, seed: 5 };
const STORY = `Once upon a time there was a little fox who lived in a forest. ${"Every day she went to the river to see the fish. ".repeat(12)}`;

let engine: Engine;
let prefixCache: PrefixCache;
let warm: Generator;
let cold: Generator;

beforeAll(async () => {
  const target = { modelDir: DEFAULT_MODEL_DIR, precision: "f32" } as const;
  const { dir, manifest } = await ensureArtifact({ ...target, cacheDir: SHARED_ARTIFACTS });
  engine = new Engine({
    openRunner: () => openRunner("native", { artifactDir: dir, numSlots: 4, numThreads: 1, device: "cpu" }),
    limits: { maxBatch: 4, maxQueue: 100, prefillChunk: 64 },
    observer: { onStep() {}, onSequenceEnd() {}, onStatus() {} },
    now: () => performance.now(),
    random: () => 0.5,
  });
  await engine.start();
  const tokenizer = (await loadTokenizer(DEFAULT_MODEL_DIR))!;
  const model = { modelHash: manifest.modelHash, stateBytes: stateBytes(manifest.state) };
  prefixCache = new PrefixCache({ store: new MemoryStore({ maxBytes: 1e8 }), model, nowMs: Date.now });
  const parts = {
    engine,
    tokenizer,
    manifest,
    store: new MemoryStore({ maxBytes: 1e8 }),
    limits: { maxPromptTokens: 2000, maxOutputTokens: 200 },
    newId: () => "id",
    nowMs: Date.now,
  };
  warm = new Generator({ ...parts, prefixCache });
  cold = new Generator(parts);
}, 120_000);
afterAll(async () => {
  await engine.close({ deadlineMs: 0 });
});

test.each<[string, Partial<GenerationRequest>]>([
  ["greedy", {}],
  ["seeded", { sampling: SAMPLED }],
  ["several seeded samples", { sampling: SAMPLED, numChoices: 3, bestOf: 3 }],
])("a trained model answers from a cached state as from the beginning: %s", async (_, given) => {
  const run = (generator: Generator, prompt: string) =>
    fold(generator.generate(request({ prompts: [text(prompt)], maxTokens: 24, ...given })));
  let history = STORY;
  for (let turn = 0; turn < 3; turn++) {
    const { hits } = prefixCache.stats();
    const fromState = await run(warm, history);
    const fromStart = await run(cold, history);
    expect(fromState.choices).toEqual(fromStart.choices);
    if (turn > 0) {
      expect(fromState.usage.cachedTokens).toBeGreaterThan(100);
      expect(prefixCache.stats().hits).toBe(hits + 1);
    }
    history += `${fromState.choices[0]!.text} Then the fox said: `;
  }
});

test("log-probabilities equal those of a cold run, up to the order of summation", async () => {
  const given = { prompts: [text(STORY)], maxTokens: 24, numLogprobs: 1 };
  await fold(warm.generate(request(given)));
  const [fromState, fromStart] = [
    await fold(warm.generate(request(given))),
    await fold(cold.generate(request(given))),
  ].map(({ choices }) => choices[0]!.logprobs);
  expect(fromState).toHaveLength(24);
  for (const [i, logprob] of fromState!.entries()) expect(logprob).toBeCloseTo(fromStart![i]!, 4);
});

test("a chat is read once, however often it is sent", async () => {
  const messages = [
    { role: "system", content: STORY },
    { role: "user", content: "Hello" },
  ];
  const say = (generator: Generator) => fold(generator.generate(request({ prompts: [chat(...messages)] })));
  for (let turn = 0; turn < 3; turn++) {
    const [fromState, fromStart] = [await say(warm), await say(cold)];
    expect(fromState.choices).toEqual(fromStart.choices);
    const { promptTokens, cachedTokens } = fromState.usage;
    if (turn > 0) expect(promptTokens - cachedTokens).toBeLessThan(40);
    messages.push(
      { role: "assistant", content: fromState.choices[0]!.text },
      { role: "user", content: `And ${turn}?` },
    );
  }
});
