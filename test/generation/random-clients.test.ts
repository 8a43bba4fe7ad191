import { setImmediate as tick } from "node:timers/promises";
import fc from "fast-check";
import { beforeAll, expect, test } from "vitest";
import type { Generator } from "../../src/generation/generator.ts";
import { PrefixCache } from "../../src/prefix/prefix-cache.ts";
import { GREEDY } from "../../src/sampling/params.ts";
import type { ConversationKey } from "../../src/sessions/conversation-store.ts";
import { MemoryStore } from "../../src/sessions/stores/memory-store.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { bytesOf, startEngine, stateAfter, tokensAlone } from "../helpers/engine-harness.ts";
import { makeGenerator, request, tinyTokenizer, tokens, until, VOCAB_SIZE } from "../helpers/generation-harness.ts";
import { numCases } from "../helpers/random-cases.ts";

/** What clients of a server do, each after so many turns of the event loop. */
type Action =
  | {
      readonly type: "say";
      readonly turns: number;
      readonly session: number;
      readonly length: number;
      readonly n: number;
    }
  | {
      readonly type: "send";
      readonly turns: number;
      readonly base: number;
      readonly length: number;
      readonly n: number;
    }
  | {
      readonly type: "fork" | "rename" | "delete" | "move";
      readonly turns: number;
      readonly session: number;
      readonly to: number;
    }
  | { readonly type: "abort" | "leave"; readonly turns: number; readonly pick: number }
  | { readonly type: "interrupt"; readonly turns: number };

const NAMES = ["a", "b", "c"];
const EXPECTED = new Set(["session_busy", "session_not_found", "session_exists", "shutting_down", "aborted"]);
const turns = fc.nat(12);
const session = fc.nat(NAMES.length - 1);
const n = fc.nat(5);
const action: fc.Arbitrary<Action> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      type: fc.constant("say" as const),
      turns,
      session,
      length: fc.integer({ min: 1, max: 90 }),
      n,
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      type: fc.constant("send" as const),
      turns,
      base: fc.nat(1),
      length: fc.integer({ min: 1, max: 300 }),
      n,
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ type: fc.constantFrom("fork", "rename", "delete", "move"), turns, session, to: session }),
  },
  { weight: 2, arbitrary: fc.record({ type: fc.constantFrom("abort", "leave"), turns, pick: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("interrupt" as const), turns }) },
);

let tokenizer: Tokenizer;
beforeAll(async () => {
  tokenizer = await tinyTokenizer();
});

const ids = (length: number, first: number) => Array.from({ length }, (_, i) => 10 + ((first * 31 + 7 * i) % 300));
const key = (index: number): ConversationKey => ({ type: "session", id: NAMES[index]! });
const sampling = (n: number) => (n % 2 === 0 ? GREEDY : { ...GREEDY, temperature: 1, seed: n, repetitionPenalty: 1.2 });

interface Client {
  readonly abort: AbortController;
  isLeaving: boolean;
  readonly done: Promise<void>;
}

/**
 * Asks, checks that the answer is that of one who read everything from the beginning, and gives the
 * error's code.
 */
async function ask(
  generator: Generator,
  client: Omit<Client, "done">,
  given: Parameters<typeof request>[0],
): Promise<void> {
  const tokenIds: number[] = [];
  let before: readonly number[] = [];
  let numEnds = 0;
  try {
    for await (const event of generator.generate(request({ ...given, ignoreEos: true, signal: client.abort.signal }))) {
      if (event.type === "accepted") before = event.prompts[0]!.tokenIds;
      if (event.type === "delta") tokenIds.push(...event.tokenIds);
      if (event.type === "finished") numEnds++;
      if (client.isLeaving) break;
    }
    if (!client.isLeaving) expect(numEnds).toBe(1);
  } catch (error) {
    expect(EXPECTED).toContain((error as { code?: string }).code ?? error);
  }
  const alone = { promptIds: before, sampling: given.sampling ?? GREEDY, maxTokens: tokenIds.length } as const;
  const cold = tokensAlone(
    {
      ...alone,
      minTokens: 0,
      stopTokenIds: new Set<number>(),
      vocabSize: tokenizer.vocabSize,
      signal: client.abort.signal,
    },
    VOCAB_SIZE,
  );
  expect(tokenIds).toEqual(cold);
}

async function play(actions: readonly Action[]): Promise<void> {
  const harness = await startEngine({ vocabSize: VOCAB_SIZE, maxBatch: 3, prefillChunk: 30 });
  const [store, prefixes] = [new MemoryStore({ maxBytes: 1e7 }), new MemoryStore({ maxBytes: 40_000 })];
  const model = { modelHash: `fake-${VOCAB_SIZE}`, stateBytes: 24 };
  const prefixCache = new PrefixCache({ store: prefixes, model, nowMs: () => 0 });
  const generator = makeGenerator(harness.engine, tokenizer, { store, prefixCache });
  const { conversations } = generator;
  const clients: Client[] = [];
  const start = (given: Parameters<typeof request>[0]) => {
    const client = { abort: new AbortController(), isLeaving: false };
    clients.push(Object.assign(client, { done: ask(generator, client, given) }));
  };
  const attempt = (act: Promise<unknown>) =>
    act.catch((error: { code?: string }) => expect(EXPECTED).toContain(error.code ?? error));
  for (const name of NAMES.slice(0, 2)) await conversations.createSession("", name);

  for (const act of actions) {
    for (let turn = 0; turn < act.turns; turn++) await tick();
    if (act.type === "say") {
      const resumed = { resumeFrom: key(act.session), saveAs: key(act.session) };
      start({ prompts: [tokens(...ids(act.length, act.n))], ...resumed, sampling: sampling(act.n), maxTokens: 6 });
    } else if (act.type === "send") {
      start({
        prompts: [tokens(...ids(150, act.base), ...ids(act.length, act.n))],
        sampling: sampling(act.n),
        maxTokens: 6,
      });
    } else if ("pick" in act) {
      const client = clients[act.pick % clients.length];
      if (act.type === "abort") client?.abort.abort();
      else if (client !== undefined) client.isLeaving = true;
    } else if (act.type === "interrupt") harness.engine.interrupt();
    else {
      const [from, to] = [NAMES[act.session]!, NAMES[act.to]!];
      if (act.type === "fork") await attempt(conversations.forkSession("", from, to));
      else if (act.type === "rename") await attempt(conversations.renameSession("", from, to));
      else if (act.type === "delete") await attempt(conversations.deleteSession("", from));
      else {
        const moved = conversations.exportSession("", from).then((file) => conversations.importSession("", file, to));
        await attempt(moved);
      }
    }
  }
  await Promise.all(clients.map(({ done }) => done));
  await generator.drain({ graceMs: 0 });
  await until(() => harness.engine.load.numRunning === 0);
  harness.engine.checkIntegrity();
  expect(harness.engine.load).toMatchObject({ numRunning: 0, numWaiting: 0, slotsInUse: 0 });
  expect(harness.runners.flatMap(({ breaches }) => breaches)).toEqual([]);
  expect(prefixes.stats().bytes).toBeLessThanOrEqual(40_000);
  for (const { id, busy, numTokens, position } of await conversations.listSessions("")) {
    const { tokenIds, state } = (await store.get(`session::${id}`))!;
    expect({ busy, numTokens }).toEqual({ busy: false, numTokens: tokenIds.length });
    if (numTokens > 0) expect(state).toEqual(bytesOf(stateAfter(tokenIds.slice(0, position))));
  }
  await harness.engine.close({ deadlineMs: 0 });
}

test("whatever clients do, each gets one answer, as from the beginning; sessions are complete and free, slots are empty", async () => {
  await fc.assert(fc.asyncProperty(fc.array(action, { minLength: 1, maxLength: 30 }), play), { numRuns: numCases(60) });
}, 120_000);
