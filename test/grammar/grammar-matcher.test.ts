/** Masks and forced tokens against the definition: what a state allows, token by token. */
import { setImmediate as turn } from "node:timers/promises";
import { beforeAll, describe, expect, it } from "vitest";
import type { Constraint } from "../../src/grammar/constraint.ts";
import { type CompiledGrammar, type GrammarMatcher, stepAll } from "../../src/grammar/grammar-matcher.ts";
import { Grammars } from "../../src/grammar/grammars.ts";
import { SlicedWork } from "../../src/grammar/sliced-work.ts";
import type { Vocabulary } from "../../src/grammar/token-trie.ts";
import { loadTokenizer } from "../../src/tokenizer/load.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { SCHEMAS } from "../fixtures/json-schemas.ts";
import { DEFAULT_MODEL_DIR } from "../helpers/real-server.ts";

const END = 2;
const now = () => performance.now();

let tokenizer: Tokenizer;
let grammars: Grammars;
beforeAll(async () => {
  tokenizer = (await loadTokenizer(DEFAULT_MODEL_DIR))!;
  grammars = new Grammars(tokenizer, { now });
});

const schema = (value: object): Constraint => ({ type: "json_schema", schema: value as never, strict: false });

/** A small generator of numbers, for the same tests every time. */
function* random(seed: number): Generator<number, never> {
  for (let x = seed; ; ) {
    x = Math.imul(x ^ (x >>> 15), 0x2c1b3c6d) + 0x9e3779b9;
    yield (x >>> 8) / 2 ** 24;
  }
}

function idsIn(mask: Int32Array): number[] {
  return Array.from({ length: mask.length * 32 }, (_, id) => id).filter(
    (id) => ((mask[id >> 5]! >>> (id & 31)) & 1) === 1,
  );
}

async function known(matcher: GrammarMatcher) {
  for (let i = 0; i < 10_000 && matcher.next === undefined; i++) await turn();
  return matcher.next!;
}

/** By the definition: no trie, no memory, no nearby counts. */
function allowedBy({ automaton }: CompiledGrammar, text: Uint8Array, start: CompiledGrammar["start"]): number[] {
  const state = stepAll(automaton, start, text)!;
  const ids = Array.from({ length: tokenizer.vocabSize }, (_, id) => id);
  return ids.filter((id) => {
    if (id === END) return state.mayEnd;
    const bytes = tokenizer.tokenBytes(id);
    return bytes.length > 0 && !tokenizer.specialIds.has(id) && stepAll(automaton, state, bytes) !== undefined;
  });
}

describe.each(Object.keys(SCHEMAS))("the schema %s", (name) => {
  it("has the masks of its definition, and forces only what must come", async () => {
    const grammar = grammars.compile(schema(SCHEMAS[name]!));
    const open = await grammars.open(grammar, "", [END]);
    const next = random(name.length);
    const matcher = open();
    let text = Buffer.alloc(0);
    for (let step = 0; step < 25; step++) {
      const found = await known(matcher);
      if (found.type === "end") break;
      const allowed = allowedBy(grammar, text, grammar.start);
      if (found.type === "forced") {
        for (const tokenId of found.tokenIds) {
          const bytes = tokenizer.tokenBytes(tokenId);
          // All other tokens that may come are beginnings of this one.
          for (const other of allowedBy(grammar, text, grammar.start)) {
            expect(Buffer.from(bytes).indexOf(tokenizer.tokenBytes(other))).toBe(0);
          }
          text = Buffer.concat([text, bytes]);
        }
        matcher.acceptForced();
        continue;
      }
      expect(found.type).toBe("allowed");
      const ids = found.type === "allowed" ? idsIn(found.mask) : [];
      expect(ids).toEqual(allowed);
      const chosen = ids[Math.floor(next.next().value * ids.length)]!;
      if (chosen === END) break;
      matcher.accept(chosen);
      text = Buffer.concat([text, tokenizer.tokenBytes(chosen)]);
    }
    matcher.close();
  });
});

it("forces the longest tokens, up to one that may be longer", async () => {
  const bytes = (id: number) =>
    Buffer.from(["", "{", '{"', '{"a', '"', ": ", "x", '"x', "1", "a", "}"][id] ?? "", "utf8");
  const vocabulary: Vocabulary = { vocabSize: 11, specialIds: new Set([0]), tokenBytes: bytes };
  const small = new Grammars(vocabulary, { now });
  const grammar = small.compile({ type: "grammar", grammar: 'root ::= "{\\"a\\": \\"" [x1]* "\\"}"' });
  const matcher = (await small.open(grammar, "", []))();
  // `"x` could come instead of the last quote.
  expect(matcher.next).toEqual({ type: "forced", tokenIds: [3, 4, 5] });
  matcher.acceptForced();
  const found = await known(matcher);
  expect(found.type === "allowed" && idsIn(found.mask)).toEqual([4, 7]);
  matcher.accept(7);
  matcher.accept(4);
  expect(matcher.next).toEqual({ type: "forced", tokenIds: [10] });
  matcher.acceptForced();
  expect(await known(matcher)).toEqual({ type: "end" });
});

it("special tokens come only where tags name them", async () => {
  const bytes = (id: number) => Buffer.from(["<s>", "<call>", "<", "call", ">", "1", "x"][id]!, "utf8");
  const vocabulary: Vocabulary = { vocabSize: 7, specialIds: new Set([0, 1]), tokenBytes: bytes };
  const small = new Grammars(vocabulary, { now });
  const tags = [{ begin: "<call>", schema: { const: 1 }, strict: true, end: "" }];
  const free = small.compile({ type: "tagged", tags, triggers: ["<call>"], atLeastOne: false, stopAfterFirst: false });
  const found = await known((await small.open(free, "", []))());
  expect(found.type === "allowed" && idsIn(found.mask)).toEqual([1, 2, 3, 4, 5, 6]);
  const first = small.compile({ type: "tagged", tags, triggers: ["<call>"], atLeastOne: true, stopAfterFirst: true });
  expect((await small.open(first, "", []))().next).toEqual({ type: "forced", tokenIds: [1, 5] });
  const text = small.compile({ type: "grammar", grammar: "root ::= .*" });
  const plain = await known((await small.open(text, "", []))());
  expect(plain.type === "allowed" && idsIn(plain.mask)).toEqual([2, 3, 4, 5, 6]);
});

it("an answer continues a text that may begin it, and no other", async () => {
  const grammar = grammars.compile(schema(SCHEMAS.person!));
  const matcher = (await grammars.open(grammar, '{"name": "Ann", "a', [END]))();
  const next = matcher.next!;
  expect(next.type === "forced" && tokenizer.decode(next.tokenIds, { skipSpecialTokens: true })).toMatch(/^ge":/);
  await expect(grammars.open(grammar, '{"name": 5', [END])).rejects.toMatchObject({ code: "invalid_value" });
});

it("an end token that is text as well ends nothing before its time", async () => {
  const bytes = (id: number) => Buffer.from(["a", "b", "\n"][id]!, "utf8");
  const small = new Grammars({ vocabSize: 3, specialIds: new Set(), tokenBytes: bytes }, { now });
  const grammar = small.compile({ type: "regex", pattern: "[ab\\n]{2,3}" });
  const matcher = (await small.open(grammar, "", [2]))();
  const first = await known(matcher);
  expect(first.type === "allowed" && idsIn(first.mask)).toEqual([0, 1]);
  matcher.accept(0);
  await known(matcher);
  matcher.accept(1);
  const later = await known(matcher);
  expect(later.type === "allowed" && idsIn(later.mask)).toEqual([0, 1, 2]);
});

it("a vocabulary that cannot write what must come fails clearly", async () => {
  const small = new Grammars({ vocabSize: 1, specialIds: new Set(), tokenBytes: () => Buffer.from("a") }, { now });
  const matcher = (await small.open(small.compile({ type: "choice", choices: ["b", "c"] }), "", []))();
  const found = await known(matcher);
  expect(found).toMatchObject({ type: "failed", error: { code: "invalid_value" } });
  expect(found.type === "failed" && found.error.message).toContain("no token of the vocabulary");
});

it("schemas are remembered, some of them", () => {
  let numCompiled = 0;
  const observed = new Grammars(tokenizer, { now, observer: { onGrammar: () => numCompiled++ } });
  const first = observed.compile(schema({ const: 0 }));
  expect(observed.compile(schema({ const: 0 }))).toBe(first);
  expect(numCompiled).toBe(1);
  for (let i = 1; i <= 32; i++) observed.compile(schema({ const: i }));
  expect(observed.compile(schema({ const: 0 }))).not.toBe(first);
  expect(numCompiled).toBe(34);
});

describe("masks that take long", () => {
  /** A clock that goes on with every look at it. */
  function slowWork() {
    let time = 0;
    return new SlicedWork({ now: () => (time += 0.2) });
  }

  it("are found in slices, in turn", async () => {
    const { automaton, start, trie } = grammars.compile(schema(SCHEMAS.anything!));
    const work = slowWork();
    const done: number[] = [];
    for (const id of [1, 2]) {
      work.add({
        walk: trie.walk(automaton, start),
        done: () => done.push(id),
        failed: (error) => expect(error).toBeUndefined(),
      });
    }
    expect(done).toEqual([]);
    for (let i = 0; i < 1000 && done.length < 2; i++) await turn();
    expect(done).toEqual([1, 2]);
  });

  it("fail if they take too long", async () => {
    const endless = { advance: () => false, mask: new Int32Array(1) };
    let time = 0;
    const work = new SlicedWork({ now: () => (time += 100) });
    const error = await new Promise((failed) => work.add({ walk: endless as never, done: () => {}, failed }));
    expect(error).toMatchObject({ code: "invalid_value", message: expect.stringContaining("within 1000 ms") });
  });

  it("are dropped with their sequence", async () => {
    let numSlices = 0;
    const work = slowWork();
    const advance = () => {
      numSlices++;
      return false;
    };
    const job = { walk: { advance } as never, done: () => {}, failed: () => {} };
    work.add(job);
    await turn();
    await turn();
    const before = numSlices;
    work.drop(job);
    for (let i = 0; i < 5; i++) await turn();
    expect(numSlices).toBe(before);
  });
});
