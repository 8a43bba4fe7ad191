import { setImmediate as turn } from "node:timers/promises";
import { beforeAll, describe, expect, test } from "vitest";
import { DenseMambaError } from "../../src/errors.ts";
import { deriveSeed } from "../../src/generation/admission.ts";
import type { GenerationEvent, GenerationRequest } from "../../src/generation/events.ts";
import { completionAnswer } from "../../src/server/endpoints/completions.ts";
import { collect as collectAnswer } from "../../src/server/openai/choices.ts";
import type { CompletionsTask } from "../../src/server/openai/fields.ts";
import { jsonPieces } from "../../src/server/openai/json-writer.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { startEngine } from "../helpers/engine-harness.ts";
import {
  EOS,
  fold,
  makeGenerator,
  request,
  text,
  tinyTokenizer,
  tokens,
  VOCAB_SIZE,
} from "../helpers/generation-harness.ts";
import { type Script, ScriptedEngine } from "../helpers/scripted-engine.ts";

let tokenizer: Tokenizer;
beforeAll(async () => {
  tokenizer = await tinyTokenizer();
});

/** The ids of text in the middle of a text. */
const ids = async (value: string) => (await tokenizer.encodeContinuation(value))!;

async function answering(value: string, ...more: number[]): Promise<ScriptedEngine> {
  const tokenIds = [...(await ids(value)), ...more];
  return new ScriptedEngine(() => ({ tokenIds }));
}

test("a text prompt becomes tokens with BOS, and tokens become text", async () => {
  const engine = await answering(" world", EOS);
  const { accepted, choices, usage, events } = await fold(
    makeGenerator(engine, tokenizer).generate(request({ prompts: [text("hello")] })),
  );
  const promptIds = await tokenizer.encode("hello", { addSpecialTokens: true });
  expect(promptIds[0]).toBe(1);
  expect(accepted.prompts).toEqual([{ numTokens: promptIds.length, tokenIds: promptIds, cachedTokens: 0 }]);
  expect(choices[0]!.text).toBe(" world");
  expect(choices[0]!.finished).toMatchObject({ reason: "stop", stoppedBy: EOS });
  // EOS is a token of the answer, with its own delta and log-probability, but without text.
  expect(choices[0]!.tokenIds.at(-1)).toBe(EOS);
  const numTokens = choices[0]!.tokenIds.length;
  expect(usage).toEqual({
    promptTokens: promptIds.length,
    cachedTokens: 0,
    completionTokens: numTokens,
    stateBytes: 24,
    finishReasons: ["stop"],
  });
  expect(events.filter((event) => event.type === "delta")).toHaveLength(numTokens);
});

describe("an answer that would be too large", () => {
  const ask = async (given: Partial<GenerationRequest>, maxAnswerTokens = 1000) => {
    const engine = await answering(" world", EOS);
    const generator = makeGenerator(engine, tokenizer, { limits: { maxAnswerTokens } });
    const outcome = await fold(generator.generate(request({ prompts: [tokens(...Array(20).fill(5))], ...given }))).then(
      () => "admitted",
      (error: DenseMambaError) => error,
    );
    if (outcome !== "admitted") expect(engine.requests).toEqual([]);
    return outcome;
  };
  const echoed = { echo: true, maxTokens: 5 };

  test.each<[name: string, given: Partial<GenerationRequest>, message: string, param: string]>([
    [
      "by choices, a prompt and log-probabilities",
      { ...echoed, numChoices: 2, bestOf: 2, numLogprobs: 20 },
      "at most 1000 tokens and log-probabilities, given 1050: 2 x (20 prompt tokens x (1 + 20 log-probabilities) + 5 tokens x (1 + 20 log-probabilities))",
      "n",
    ],
    ["by samples that are not shown", { numChoices: 1, bestOf: 20, maxTokens: 51 }, "given 1020: 20 x (51 tokens", "n"],
    ["by prompts", { prompts: Array(21).fill(tokens(5)), maxTokens: 48 }, "21 prompts x 48 tokens", "max_tokens"],
    ["by log-probabilities", { maxTokens: 50, numLogprobs: 20 }, "given 1050", "logprobs"],
    [
      "by those of a prompt that is not echoed",
      { numPromptLogprobs: 49, maxTokens: 1 },
      "given 1001: 1 x (20 prompt tokens x (1 + 49 log-probabilities) + 1 tokens",
      "max_tokens",
    ],
    [
      "by a prompt's ids beside every choice",
      { returnTokenIds: true, numChoices: 50, bestOf: 50, maxTokens: 1 },
      "given 1050: 50 x (20 prompt tokens x (1 + 0 log-probabilities) + 1 tokens",
      "n",
    ],
    [
      "by the length that is the server's own",
      { maxTokens: undefined, numLogprobs: 20 },
      "100 tokens x (1 + 20",
      "logprobs",
    ],
  ])("%s is refused before any of it is made", async (_name, given, message, param) => {
    const error = await ask(given);
    expect(error).toMatchObject({ code: "invalid_value", param });
    expect(String(error)).toContain(message);
  });

  test("is refused only then", async () => {
    expect(await ask({ ...echoed, numLogprobs: 20 }, 525)).toBe("admitted");
    expect(await ask({ maxTokens: 100, numLogprobs: 9 })).toBe("admitted");
    expect(await ask({ prompts: Array(10).fill(tokens(...Array(100).fill(5))), maxTokens: 100 })).toBe("admitted");
  });
});

test("ids without a text are not sampled", async () => {
  const engine = await answering(" world", EOS);
  await fold(makeGenerator(engine, tokenizer).generate(request({ prompts: [text("hello")] })));
  expect(tokenizer.vocabSize).toBeLessThan(VOCAB_SIZE);
  expect(engine.requests.map(({ vocabSize }) => vocabSize)).toEqual([tokenizer.vocabSize]);
});

test("max_tokens ends an answer, and an incomplete character is returned as U+FFFD", async () => {
  const euro = await ids("€");
  const engine = new ScriptedEngine(() => ({ tokenIds: euro }));
  const { choices } = await fold(
    makeGenerator(engine, tokenizer).generate(request({ prompts: [text("a")], maxTokens: 5 })),
  );
  expect(choices[0]!.text).toBe("€\uFFFD");
  expect(choices[0]!.tokenIds).toHaveLength(5);
  expect(choices[0]!.finished).toMatchObject({ reason: "length" });
});

test("without max_tokens the server's limit holds", async () => {
  const engine = await answering("x");
  await fold(
    makeGenerator(engine, tokenizer, { limits: { maxOutputTokens: 7 } }).generate(
      request({ prompts: [text("a")], maxTokens: undefined }),
    ),
  );
  expect(engine.requests[0]!.maxTokens).toBe(7);
});

test("ignore_eos makes EOS an ordinary token", async () => {
  const engine = await answering("x", EOS);
  const { choices } = await fold(
    makeGenerator(engine, tokenizer).generate(request({ prompts: [text("a")], ignoreEos: true, stopTokenIds: [9] })),
  );
  expect([...engine.requests[0]!.stopTokenIds]).toEqual([9]);
  expect(choices[0]!.finished!.reason).toBe("length");
  expect(choices[0]!.text).toBe("xxxx");
});

describe("stop strings", () => {
  const generate = async (answer: string, given: Partial<GenerationRequest>, numOvershot = 0) => {
    const engine = await answering(answer);
    engine.numOvershot = numOvershot;
    const outcome = await fold(
      makeGenerator(engine, tokenizer).generate(request({ prompts: [text("a")], maxTokens: 50, ...given })),
    );
    return { ...outcome, engine, choice: outcome.choices[0]! };
  };

  test("end the answer before the string, and stop the sequence", async () => {
    const { choice, engine, usage } = await generate("xy END z", { stopStrings: ["END"] });
    expect(choice.text).toBe("xy ");
    expect(choice.finished).toMatchObject({ reason: "stop", stoppedBy: "END" });
    expect(engine.ends).toEqual(["stop"]);
    expect(usage.completionTokens).toBe((await ids("xy END")).length);
  });

  test("tokens sampled after the stop are neither returned nor counted", async () => {
    const { choice, usage } = await generate("xy END z", { stopStrings: ["END"] }, 2);
    expect(choice.text).toBe("xy ");
    expect(usage.completionTokens).toBe((await ids("xy END")).length);
  });

  test("are returned if asked for", async () => {
    expect((await generate("xy END z", { stopStrings: ["END"], includeStopString: true })).choice.text).toBe("xy END");
  });

  test("are never returned in part, and text that was held back for an incomplete one is returned", async () => {
    const { events } = await generate("xENx", { stopStrings: ["END"], maxTokens: 4 });
    const deltas = events.flatMap((event) => (event.type === "delta" ? [event.text] : []));
    expect(deltas.filter((delta) => delta !== "")).toEqual(["x", "ENx"]);
    expect((await generate("xEN", { stopStrings: ["END"], maxTokens: 3 })).choice.text).toBe("xEN");
  });

  test("count only in text that comes after min_tokens", async () => {
    const { choice } = await generate("END", { stopStrings: ["END"], minTokens: 4 });
    expect(choice.text).toBe("ENDEND");
    expect(choice.finished).toMatchObject({ reason: "stop", stoppedBy: "END" });
  });

  test("a stop token's text is returned too", async () => {
    const [z] = await ids("z");
    const { choice } = await generate("xENz", { stopStrings: ["END"], stopTokenIds: [z!], includeStopString: true });
    expect(choice.text).toBe("xENz");
    expect(choice.finished).toMatchObject({ reason: "stop", stoppedBy: z });
  });
});

describe("echo and log-probabilities", () => {
  test("a text prompt is echoed unchanged", async () => {
    const engine = await answering("!");
    const { choices } = await fold(
      makeGenerator(engine, tokenizer).generate(request({ prompts: [text("  hello é")], maxTokens: 1, echo: true })),
    );
    expect(choices[0]!.prompt!.text + choices[0]!.text).toBe("  hello é!");
  });

  test("of many prompts are decoded one a turn of the event loop", async () => {
    const prompts = Array.from({ length: 64 }, () => tokens(50, 51));
    const events = makeGenerator(await answering("!"), tokenizer).generate(
      request({ prompts, maxTokens: 1, echo: true }),
    );
    let numTurns = 0;
    let isAdmitted = false;
    const others = (async () => {
      for (; !isAdmitted; numTurns++) await turn();
    })();
    expect((await events[Symbol.asyncIterator]().next()).value).toMatchObject({ type: "accepted" });
    isAdmitted = true;
    await others;
    expect(numTurns).toBeGreaterThanOrEqual(64);
  });

  test("a prompt of tokens is echoed as text, and an incomplete character returned once", async () => {
    const euro = await ids("€");
    const engine = new ScriptedEngine(() => ({ tokenIds: euro.slice(2) }));
    const prompt = tokens(1, ...(await ids("he")), ...euro.slice(0, 2));
    const { choices } = await fold(
      makeGenerator(engine, tokenizer).generate(request({ prompts: [prompt], maxTokens: 1, echo: true })),
    );
    expect([choices[0]!.prompt!.text, choices[0]!.text]).toEqual(["<s>he", "€"]);
  });

  test("echo alone: the prompt is read and nothing sampled", async () => {
    const { choices, usage } = await fold(
      makeGenerator(await answering("x"), tokenizer).generate(
        request({ prompts: [text("hello")], maxTokens: 0, echo: true }),
      ),
    );
    expect(choices[0]).toMatchObject({ text: "", tokenIds: [], finished: { reason: "length" } });
    expect(usage.completionTokens).toBe(0);
  });

  test("every prompt token has its entry, every answer token too, with text and bytes", async () => {
    const engine = await answering(" é");
    const prompt = await tokenizer.encode("the", { addSpecialTokens: true });
    const { choices } = await fold(
      makeGenerator(engine, tokenizer).generate(
        request({ prompts: [tokens(...prompt)], maxTokens: 2, echo: true, numLogprobs: 1 }),
      ),
    );
    expect(engine.requests[0]).toMatchObject({ numLogprobs: 1, numPromptLogprobs: 1 });
    const logprobs = [...choices[0]!.prompt!.logprobs!];
    expect(logprobs).toEqual([null, expect.objectContaining({ tokenId: prompt[1], text: " the", logprob: -0.5 })]);
    expect(choices[0]!.logprobs).toEqual([-1, -1]);
    expect(Buffer.from(logprobs[1]!.bytes).toString()).toBe(" the");
  });
});

describe("a token's place in the text", () => {
  const HELLO = 15;
  test.each([
    ["a text, after a BOS that is not shown", text("hello the"), " the!", [0, 0, 0, 2, 5], [0, 4]],
    ["a BOS that the text spells", text("<s>hello"), "!", [0, 3, 3, 3, 5], [0]],
    ["a space that the text begins with", text(" hello"), "!", [0, 0, 0, 1, 3], [0]],
    ["characters beyond 16 bits", text("é😀!"), "😀!", undefined, [0, 1, 1, 1, 1]],
  ])("%s", async (_, prompt, answer, promptOffsets, offsets) => {
    const engine = await answering(answer);
    const { choices, events } = await fold(
      makeGenerator(engine, tokenizer).generate(
        request({ prompts: [prompt], maxTokens: offsets.length, echo: true, numLogprobs: 0 }),
      ),
    );
    if (promptOffsets) expect(choices[0]!.prompt!.textOffsets).toEqual(promptOffsets);
    const [first, last] = [choices[0]!.prompt!.textOffsets![0], choices[0]!.prompt!.textOffsets!.at(-1)!];
    expect(first).toBe(0);
    expect(last).toBeLessThanOrEqual([...choices[0]!.prompt!.text].length);
    expect(answerOffsets(events)).toEqual(offsets);
  });

  test("counts the returned text of a prompt of tokens, its special tokens included", async () => {
    const [the] = (await ids(" the")) as [number];
    const places = async (skipSpecialTokens: boolean) => {
      const { choices } = await fold(
        makeGenerator(await answering("!"), tokenizer).generate(
          request({
            prompts: [tokens(1, the, EOS, the)],
            maxTokens: 1,
            echo: true,
            numLogprobs: 0,
            skipSpecialTokens,
          }),
        ),
      );
      const { text: shown, textOffsets } = choices[0]!.prompt!;
      return [shown, textOffsets];
    };
    for (const skips of [true, false]) expect(await places(skips)).toEqual(["<s> the</s> the", [0, 3, 7, 11]]);
  });

  test("counts a character that the answer completes once", async () => {
    const euro = await ids("€");
    const engine = new ScriptedEngine(() => ({ tokenIds: [...euro.slice(1), 1, ...euro, HELLO, EOS] }));
    const prompt = tokens(1, ...(await ids("he")), euro[0]!);
    const { choices, events } = await fold(
      makeGenerator(engine, tokenizer).generate(
        request({ prompts: [prompt], maxTokens: 8, echo: true, numLogprobs: 0 }),
      ),
    );
    expect(choices[0]!.prompt!.textOffsets).toEqual([0, 3, 5]);
    // `€`, a BOS, `€`, and one that is not completed.
    expect(choices[0]!.text).toMatch(/^€€./u);
    expect(answerOffsets(events).slice(0, 6)).toEqual([0, 1, 1, 1, 2, 2]);
  });

  test("is at most the text's end for tokens that a stop string cut off", async () => {
    const generation = makeGenerator(await answering(" the the the"), tokenizer).generate(
      request({ prompts: [text("a")], maxTokens: 3, numLogprobs: 0, stopStrings: ["e the the"] }),
    );
    const folded = await collectAnswer(generation, tokenizer);
    const task = { request: { echo: false, numLogprobs: 0, numChoices: 1 } } as CompletionsTask;
    const head = { id: "cmpl-1", createdS: 0, model: "m", fingerprint: "f" };
    const answer = JSON.parse([...jsonPieces(completionAnswer(head, task, folded, () => ""))].join(""));
    expect(answer.choices[0]).toMatchObject({ text: " th", logprobs: { text_offset: [0, 3, 3] } });
  });

  test("is the same in the best of several samples", async () => {
    const { events } = await fold(
      makeGenerator(await answering(" the the"), tokenizer).generate(
        request({ prompts: [text("a")], numChoices: 1, bestOf: 2, maxTokens: 2, numLogprobs: 0 }),
      ),
    );
    expect(answerOffsets(events)).toEqual([0, 4]);
  });

  function answerOffsets(events: readonly GenerationEvent[]): number[] {
    return events.flatMap((event) => (event.type === "delta" ? (event.textOffsets ?? []) : []));
  }
});

describe("several choices", () => {
  test("are numbered prompt by prompt, and each ends once", async () => {
    const engine = new ScriptedEngine((given, index) => ({ tokenIds: [100 + index, given.promptIds[0]!] }));
    const { choices, usage } = await fold(
      makeGenerator(engine, tokenizer).generate(
        request({ prompts: [tokens(50), tokens(60)], numChoices: 2, maxTokens: 2 }),
      ),
    );
    expect(choices.map(({ tokenIds }) => tokenIds)).toEqual([
      [100, 50],
      [101, 50],
      [102, 60],
      [103, 60],
    ]);
    expect(usage).toMatchObject({ promptTokens: 2, completionTokens: 8 });
  });

  test("are sent as they are sampled", async () => {
    const { events } = await fold(
      makeGenerator(await answering("x"), tokenizer).generate(
        request({ prompts: [tokens(50)], numChoices: 3, maxTokens: 20 }),
      ),
    );
    const order = events.flatMap((event) => (event.type === "delta" ? [event.index] : []));
    for (let i = 0; i < order.length; i += 3) expect(order.slice(i, i + 3).sort()).toEqual([0, 1, 2]);
  });

  test("of a real engine read the prompt once, and equal separate requests", async () => {
    const { engine, steps, runners } = await startEngine({ vocabSize: VOCAB_SIZE, prefillChunk: 7 });
    const generator = makeGenerator(engine, tokenizer);
    const prompts = [tokens(...Array.from({ length: 40 }, (_, i) => 10 + i)), tokens(5)];
    const sampling = { ...request({ prompts }).sampling, temperature: 1, seed: 42 };
    const { choices, usage, accepted } = await fold(
      generator.generate(request({ prompts, numChoices: 3, sampling, ignoreEos: true })),
    );
    // 39 tokens once, then the last one for each choice; the single token of the second prompt for
    // each.
    expect(steps.reduce((sum, step) => sum + step.numPromptTokens, 0)).toBe(39 + 3 + 3);
    expect(accepted.prompts.map(({ cachedTokens }) => cachedTokens)).toEqual([0, 0]);
    expect(usage).toMatchObject({ promptTokens: 41, cachedTokens: 0, completionTokens: 48 });
    for (const [index, choice] of choices.entries()) {
      const seed = deriveSeed(42, index % 3);
      const alone = await fold(
        generator.generate(
          request({ prompts: [prompts[Math.floor(index / 3)]!], sampling: { ...sampling, seed }, ignoreEos: true }),
        ),
      );
      expect(choice.tokenIds).toEqual(alone.choices[0]!.tokenIds);
    }
    expect(new Set(choices.map(({ tokenIds }) => tokenIds.join())).size).toBe(6);
    expect(runners[0]!.breaches).toEqual([]);
    await engine.close({ deadlineMs: 0 });
  });

  test("best_of returns those with the highest mean log-probability", async () => {
    const script = (_: unknown, index: number): Script => ({
      tokenIds: [100 + index],
      logprob: () => [-3, -1, -2, -4][index]!,
    });
    const engine = new ScriptedEngine(script);
    const generator = makeGenerator(engine, tokenizer);
    const { choices, usage, events } = await fold(
      generator.generate(request({ prompts: [tokens(50)], numChoices: 2, bestOf: 4, maxTokens: 3, echo: true })),
    );
    expect(choices.map(({ tokenIds }) => tokenIds)).toEqual([
      [101, 101, 101],
      [102, 102, 102],
    ]);
    expect(choices.every(({ prompt }) => prompt !== undefined)).toBe(true);
    expect(usage.completionTokens).toBe(12);
    // Nobody asked to see them.
    expect(events.some((event) => event.type === "delta" && event.logprobs)).toBe(false);
  });

  test("best_of sends a long answer in parts", async () => {
    const engine = new ScriptedEngine(() => ({ tokenIds: [100], logprob: () => -1 }));
    const generator = makeGenerator(engine, tokenizer, { limits: { maxOutputTokens: 1000 } });
    const long = request({ prompts: [tokens(50)], numChoices: 1, bestOf: 2, maxTokens: 1000, numLogprobs: 2 });
    const { choices, events } = await fold(generator.generate(long));
    const deltas = events.filter((event) => event.type === "delta");
    expect(deltas.map(({ tokenIds }) => tokenIds.length)).toEqual([256, 256, 256, 232]);
    expect(choices[0]!.tokenIds).toHaveLength(1000);
  });

  test("have seeds that follow from the request's", () => {
    expect(deriveSeed(undefined, 3)).toBeUndefined();
    const seeds = [0, 1, 2 ** 32, -5, 2 ** 52].flatMap((seed) => [0, 1, 2, 3].map((i) => deriveSeed(seed, i)!));
    expect(seeds[0]).toBe(0);
    expect(deriveSeed(7, 1)).toBe(deriveSeed(7, 1));
    expect(new Set(seeds).size).toBe(seeds.length);
    expect(seeds.every(Number.isSafeInteger)).toBe(true);
  });
});

describe("ends", () => {
  const endless = () => new ScriptedEngine(() => ({ tokenIds: [100] }));

  test("aborting the request ends all of its sequences", async () => {
    const engine = endless();
    const abort = new AbortController();
    const stream = makeGenerator(engine, tokenizer).generate(
      request({ prompts: [tokens(50), tokens(60)], maxTokens: 100, signal: abort.signal }),
    );
    const reasons: string[] = [];
    for await (const event of stream) {
      if (event.type === "delta") abort.abort();
      if (event.type === "finished") reasons.push(event.reason);
    }
    expect(reasons).toEqual(["aborted", "aborted"]);
    expect(engine.ends).toEqual(["aborted", "aborted"]);
  });

  test("leaving the iteration early aborts", async () => {
    const engine = endless();
    for await (const event of makeGenerator(engine, tokenizer).generate(
      request({ prompts: [tokens(50)], maxTokens: 100 }),
    )) {
      if (event.type === "delta") break;
    }
    expect(engine.requests[0]!.signal.aborted).toBe(true);
  });

  test("an aborted request is not admitted", async () => {
    const engine = endless();
    const stream = makeGenerator(engine, tokenizer).generate(
      request({ prompts: [tokens(50)], signal: AbortSignal.abort() }),
    );
    await expect(fold(stream)).rejects.toMatchObject({ code: "aborted" });
    expect(engine.requests).toHaveLength(0);
  });

  test("one sequence's failure fails the stream and aborts the others", async () => {
    const error = new DenseMambaError("runtime_fault", "gone");
    const engine = new ScriptedEngine((_, index) => ({
      tokenIds: [100],
      ...(index === 1 && { failure: { afterTokens: 3, error } }),
    }));
    const stream = makeGenerator(engine, tokenizer).generate(
      request({ prompts: [tokens(50), tokens(60), tokens(70)], maxTokens: 100 }),
    );
    const seen: GenerationEvent[] = [];
    const reading = (async () => {
      for await (const event of stream) seen.push(event);
    })();
    await expect(reading).rejects.toBe(error);
    expect(seen[0]!.type).toBe("accepted");
    expect(engine.requests.every(({ signal }) => signal.aborted)).toBe(true);
  });

  test("a full queue is an error before anything is accepted, also for choices that share a prompt", async () => {
    const refusal = new DenseMambaError("queue_full", "full");
    const engine = endless();
    engine.refusal = refusal;
    await expect(fold(makeGenerator(engine, tokenizer).generate(request({ prompts: [tokens(50)] })))).rejects.toBe(
      refusal,
    );

    const later = endless();
    const stream = makeGenerator(later, tokenizer).generate(request({ prompts: [tokens(50, 51)], numChoices: 2 }));
    const first = stream.next();
    while (later.requests.length === 0) await new Promise(setImmediate);
    later.refusal = refusal;
    await expect(first).rejects.toBe(refusal);
  });
});

describe("what is refused", () => {
  test.each<[string, Partial<GenerationRequest>, string, RegExp]>([
    ["no prompts", { prompts: [] }, "prompt", /at least 1, given 0/],
    ["an empty prompt of tokens", { prompts: [tokens()] }, "prompt", /at least one token, given 0/],
    ["an empty text without BOS", { prompts: [text("")], addSpecialTokens: false }, "prompt", /given 0/],
    [
      "an id outside the vocabulary",
      { prompts: [tokens(1, VOCAB_SIZE)] },
      "prompt",
      /prompt\[1\].*0 to 399, given 400/,
    ],
    ["a negative id", { prompts: [tokens(-1)] }, "prompt", /given -1/],
    ["a fractional id", { prompts: [tokens(1.5)] }, "prompt", /given 1.5/],
    ["n of 0", { numChoices: 0 }, "n", /1 to 1024, given 0/],
    ["an enormous n", { numChoices: 1e9, bestOf: 1e9 }, "n", /1 to 1024, given 1000000000/],
    ["best_of below n", { numChoices: 3, bestOf: 2 }, "best_of", /3 to 1024, given 2/],
    ["max_tokens above the limit", { maxTokens: 101 }, "max_tokens", /0 to 100, given 101/],
    ["min_tokens above max_tokens", { minTokens: 9 }, "min_tokens", /must be at most max_tokens \(8\); got 9/],
    ["an empty stop string", { stopStrings: [""] }, "stop", /empty/],
    ["a stop token outside the vocabulary", { stopTokenIds: [400] }, "stop_token_ids", /given 400/],
    ["truncation to nothing", { truncatePromptTokens: 0 }, "truncate_prompt_tokens", /at least 1, given 0/],
    [
      "two prompts on a session",
      { prompts: [tokens(5), tokens(5)], saveAs: { type: "session", id: "s" } },
      "prompt",
      /one prompt/,
    ],
    ["two choices on a session", { numChoices: 2, bestOf: 2, saveAs: { type: "session", id: "s" } }, "n", /one choice/],
  ])("%s", async (_, given, param, message) => {
    const engine = await answering("x");
    const stream = makeGenerator(engine, tokenizer).generate(request({ prompts: [tokens(50)], ...given }));
    await expect(fold(stream)).rejects.toMatchObject({
      code: "invalid_value",
      param,
      message: expect.stringMatching(message),
    });
    expect(engine.requests).toHaveLength(0);
  });

  test("a prompt over the limit, unless it is truncated", async () => {
    const engine = await answering("x");
    const generator = makeGenerator(engine, tokenizer, { limits: { maxPromptTokens: 3 } });
    const prompts = [tokens(10, 11, 12, 13)];
    await expect(fold(generator.generate(request({ prompts })))).rejects.toMatchObject({
      code: "prompt_too_long",
      message: "This model's maximum context length is 3 tokens. However, your prompt resulted in 4 tokens or more.",
    });
    const { accepted } = await fold(generator.generate(request({ prompts, truncatePromptTokens: 2 })));
    expect(accepted.prompts[0]!.tokenIds).toEqual([12, 13]);
  });

  test("an empty text is a prompt where the tokenizer adds BOS", async () => {
    const { accepted } = await fold(
      makeGenerator(await answering("x"), tokenizer).generate(request({ prompts: [text("")] })),
    );
    expect(accepted.prompts[0]!.tokenIds).toEqual([1]);
  });
});
