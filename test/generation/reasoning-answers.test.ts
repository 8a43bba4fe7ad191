/**
 * Answers with reasoning, from a scripted engine: which text is which, what is counted, and what a
 * conversation stores.
 */
import { describe, expect, test } from "vitest";
import type { GenerationEvent, GenerationRequest } from "../../src/generation/events.ts";
import type { Generator } from "../../src/generation/generator.ts";
import { MemoryStore } from "../../src/sessions/stores/memory-store.ts";
import { loadTokenizer } from "../../src/tokenizer/load.ts";
import type { ReasoningFormat } from "../../src/tokenizer/reasoning-tags.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { chat, EOS, fold, makeGenerator, request, storedMessages, text } from "../helpers/generation-harness.ts";
import { type Script, ScriptedEngine } from "../helpers/scripted-engine.ts";
import { byteLevelJson, writeTokenizer } from "../helpers/tiny-tokenizers.ts";

/** As Qwen's: it shows reasoning of the last turn only, and can begin without. */
const DROPS = `{% for m in messages %}[{{ m.role }}]
{%- if m.reasoning_content and loop.last %}<think>\n{{ m.reasoning_content | trim }}\n</think>\n\n{% endif %}
{{- m.content }}[end]{% endfor %}
{%- if add_generation_prompt %}[assistant]{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}`;
/** It opens the tag, and shows all reasoning again. */
const KEEPS = `{% for m in messages %}[{{ m.role }}]
{%- if m.role == 'assistant' %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}
{{- m.content }}[end]{% endfor %}{% if add_generation_prompt %}[assistant]<think>\n{% endif %}`;
const PLAIN = `{% for m in messages %}[{{ m.role }}]{{ m.content }}[end]{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}`;

const SESSION = { type: "session", id: "s" } as const;

async function tokenizerWith(chatTemplate = ""): Promise<Tokenizer> {
  const json = byteLevelJson();
  const tag = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  const tags = ["<think>", "</think>"].map((content, i) => ({ ...tag, content, id: 267 + i }));
  (json.added_tokens as object[]).push(...tags);
  return (await loadTokenizer(
    await writeTokenizer({ json, ...(chatTemplate && { config: { chat_template: chatTemplate } }) }),
  ))!;
}

interface Part {
  reasoning: string;
  content: string;
  readonly tokenIds: number[];
}

/** By choice. */
function partsOf(events: readonly GenerationEvent[]): Part[] {
  const parts: Part[] = [];
  for (const event of events) {
    if (event.type !== "delta") continue;
    parts[event.index] ??= { reasoning: "", content: "", tokenIds: [] };
    const part = parts[event.index]!;
    if (event.part === "reasoning") {
      expect(part.content, "reasoning comes first").toBe("");
      part.reasoning += event.text;
    } else part.content += event.text;
    part.tokenIds.push(...event.tokenIds);
    if (event.logprobs) expect(event.logprobs).toHaveLength(event.tokenIds.length);
  }
  return parts;
}

class Setup {
  readonly tokenizer: Tokenizer;
  readonly engine: ScriptedEngine;
  readonly generator: Generator;
  readonly store = new MemoryStore({ maxBytes: 1e8 });
  answers: (readonly number[])[] = [];

  private constructor(tokenizer: Tokenizer, reasoning: ReasoningFormat) {
    this.tokenizer = tokenizer;
    this.engine = new ScriptedEngine(
      (_request, index): Script => ({ tokenIds: this.answers[index % this.answers.length]! }),
    );
    this.engine.numOvershot = 1;
    this.generator = makeGenerator(this.engine, tokenizer, { store: this.store, reasoning });
  }

  static async with(template?: string, reasoning: ReasoningFormat = "auto"): Promise<Setup> {
    return new Setup(await tokenizerWith(template), reasoning);
  }

  /** The tags of `answer` are special tokens or, with `inLetters`, one token a letter. */
  async ids(answer: string, { inLetters = false } = {}): Promise<number[]> {
    if (!inLetters) return [...(await this.tokenizer.encodeContinuation(answer))!, EOS];
    const letters = [];
    for (const letter of answer) letters.push(...(await this.tokenizer.encodeContinuation(letter))!);
    return [...letters, EOS];
  }

  async ask(answer: readonly number[] | readonly (readonly number[])[], given: Partial<GenerationRequest> = {}) {
    this.answers = typeof answer[0] === "number" ? [answer as number[]] : [...(answer as number[][])];
    const full = request({ prompts: [chat("hi")], maxTokens: 100, ...given });
    const { events, choices, usage } = await fold(this.generator.generate(full));
    const parts = partsOf(events);
    return { parts, ...parts[0]!, usage, finished: choices[0]!.finished!, events };
  }

  get lastRequest() {
    return this.engine.requests.at(-1)!;
  }

  lastPrompt(): string {
    const { resume, promptIds } = this.lastRequest;
    return this.tokenizer.decode([...(resume?.tokenIds ?? []), ...promptIds], { skipSpecialTokens: false });
  }
}

describe.each([
  ["special tokens", false],
  ["letters", true],
])("tags that are %s", (_, inLetters) => {
  test("surround the reasoning, and are not shown", async () => {
    for (const skipSpecialTokens of [true, false]) {
      const setup = await Setup.with(DROPS);
      const ids = await setup.ids("<think>\nWhy é?\n</think>\n\nSo. <b>", { inLetters });
      const numUpTo = (await setup.ids("<think>\nWhy é?\n</think>", { inLetters })).length - 1;
      const { reasoning, content, usage, tokenIds } = await setup.ask(ids, { skipSpecialTokens });
      expect({ reasoning, content }).toEqual({ reasoning: "Why é?", content: "So. <b>" });
      expect(usage).toMatchObject({ completionTokens: ids.length, reasoningTokens: numUpTo });
      expect(tokenIds).toEqual(ids);
    }
  });

  test("count from the prompt on if the template opens them", async () => {
    const setup = await Setup.with(KEEPS);
    const ids = await setup.ids("Why?\n</think>\n\nSo.", { inLetters });
    const { reasoning, content, usage } = await setup.ask(ids, { numLogprobs: 0 });
    expect({ reasoning, content }).toEqual({ reasoning: "Why?", content: "So." });
    expect(usage.reasoningTokens).toBe((await setup.ids("Why?\n</think>", { inLetters })).length - 1);
  });

  test("later on are text", async () => {
    const setup = await Setup.with(DROPS);
    const ids = await setup.ids("<think>a</think>b<think>c</think>d", { inLetters });
    const { reasoning, content } = await setup.ask(ids, { skipSpecialTokens: false, stopTokenIds: [EOS] });
    expect({ reasoning, content }).toEqual({ reasoning: "a", content: "b<think>c</think>d" });
  });
});

test("an answer cut off within its reasoning is all reasoning", async () => {
  const setup = await Setup.with(KEEPS);
  const { reasoning, content, usage, finished } = await setup.ask(await setup.ids("Why? Why? Why?"), { maxTokens: 6 });
  expect(reasoning).not.toBe("");
  expect({ content, reason: finished.reason }).toEqual({ content: "", reason: "length" });
  expect(usage).toMatchObject({ completionTokens: 6, reasoningTokens: 6 });
});

test("an answer without reasoning is what it was, token by token", async () => {
  const [plain, thinks] = [await Setup.with(PLAIN), await Setup.with(DROPS)];
  const ids = await plain.ids(" So <think>.");
  const [expected, given] = [await plain.ask(ids, { numLogprobs: 1 }), await thinks.ask(ids, { numLogprobs: 1 })];
  expect(expected.usage).not.toHaveProperty("reasoningTokens");
  expect(given.usage.reasoningTokens).toBe(0);
  expect(given.parts).toEqual(expected.parts);
  expect(given.content).toBe(" So .");
});

test("text in tags is text for a model without reasoning, for completions, and with `off`", async () => {
  const plain = await Setup.with(PLAIN);
  const ids = await plain.ids("<think>a</think>b", { inLetters: true });
  expect(await plain.ask(ids)).toMatchObject({ reasoning: "", content: "<think>a</think>b" });
  const off = await Setup.with(DROPS, "off");
  expect(await off.ask(ids)).toMatchObject({ reasoning: "", content: "<think>a</think>b" });
  const thinks = await Setup.with(DROPS);
  const completion = await thinks.ask(ids, { prompts: [text("hi")] });
  expect(completion).toMatchObject({ reasoning: "", content: "<think>a</think>b" });
  expect(completion.usage).not.toHaveProperty("reasoningTokens");
});

test("every choice has its own reasoning", async () => {
  const setup = await Setup.with(DROPS);
  const answers = [await setup.ids("<think>a</think>b"), await setup.ids("c"), await setup.ids("<think>d", {})];
  // The first sequence reads the prompt for all.
  const { parts, usage } = await setup.ask([answers[2]!, answers[0]!, answers[1]!], { numChoices: 3, bestOf: 3 });
  expect(parts.map(({ reasoning, content }) => [reasoning, content])).toEqual([
    ["a", "b"],
    ["", "c"],
    ["d", ""],
  ]);
  const numReasoning = answers[0]!.length - 2 + answers[2]!.length;
  expect(usage.reasoningTokens).toBe(numReasoning);
});

describe("a stop string", () => {
  test("does not count in reasoning, or across its end", async () => {
    for (const stop of ["wait", "\n\n", "k", "t>a"]) {
      const setup = await Setup.with(DROPS);
      const ids = await setup.ids("<think>wait\n\nk</think>\n\nanswer: wait!", { inLetters: true });
      const { reasoning, content, finished } = await setup.ask(ids, { stopStrings: [stop] });
      const end = stop === "wait" ? "answer: " : "answer: wait!";
      expect({ reasoning, content }, stop).toEqual({ reasoning: "wait\n\nk", content: end });
      expect(finished.stoppedBy, stop).toBe(stop === "wait" ? "wait" : EOS);
    }
  });

  test("is held back and released where the answer ends", async () => {
    const setup = await Setup.with(DROPS);
    const { content } = await setup.ask(await setup.ids("<think>a</think>b wai"), { stopStrings: ["wait"] });
    expect(content).toBe("b wai");
  });

  test("leaves the session with what the client received", async () => {
    for (const [stop, sent] of [
      ["two", "one "],
      ["one", ""],
      ["ne t", "o"],
    ] as const) {
      const setup = await Setup.with(KEEPS);
      await setup.generator.conversations.createSession("", SESSION.id);
      const keys = { resumeFrom: SESSION, saveAs: SESSION };
      const { content } = await setup.ask(await setup.ids("Why?\n</think>\n\none two"), {
        stopStrings: [stop],
        ...keys,
      });
      expect(content).toBe(sent);
      await setup.ask(await setup.ids("end"), { prompts: [chat("more")], ...keys });
      expect(setup.lastPrompt().trim()).toBe(
        `[user]hi[end][assistant]<think>\nWhy?\n</think>\n\n${sent}[end][user]more[end][assistant]<think>`,
      );
    }
  });
});

describe("min_tokens and ignore_eos", () => {
  test("do not change what is reasoning", async () => {
    const setup = await Setup.with(KEEPS);
    const ids = await setup.ids("a</think>bab");
    const given = { ignoreEos: true, minTokens: 3, maxTokens: ids.length, stopStrings: ["b"] };
    expect(await setup.ask(ids, given)).toMatchObject({ reasoning: "a", content: "ba" });
  });
});

describe("what ends a turn of the default chat", () => {
  test("counts in reasoning too, and after it", async () => {
    for (const [answer, reasoning, content] of [
      ["<think>a \nUser: b</think>c", "a", ""],
      ["<think>a</think>\nUser: b", "a", ""],
      ["<think>a</think>b\nUser: c", "a", "b"],
      ["<think>a</think>b\nUse", "a", "b\nUse"],
      [" <thi\nUser: ", "", " <thi"],
    ] as const) {
      const setup = await Setup.with(undefined, "think");
      const ids = await setup.ids(answer, { inLetters: true });
      const given = await setup.ask(ids, { stopStrings: ["User: c"] });
      expect(given, answer).toMatchObject({ reasoning, content });
      expect(given.finished.stoppedBy).toBe(answer.endsWith("Use") ? EOS : "\nUser:");
    }
  });
});

describe("a session", () => {
  const keys = { resumeFrom: SESSION, saveAs: SESSION };

  test("continues its state if the template shows the reasoning again", async () => {
    const setup = await Setup.with(KEEPS);
    await setup.generator.conversations.createSession("", SESSION.id);
    const ids = (await setup.ids("Why?\n</think>\n\nSo.")).slice(0, -1);
    await setup.ask(ids, { ...keys, maxTokens: ids.length });
    const snapshot = (await setup.store.get("session::s"))!;
    expect(storedMessages(setup.tokenizer, snapshot)).toEqual([
      { role: "user", content: "hi" },
      { role: "assistant", content: "So.", reasoning: "Why?" },
    ]);
    await setup.ask(ids, { prompts: [chat("more")], ...keys });
    expect(setup.lastRequest.resume?.position).toBeGreaterThan(ids.length);
    expect(setup.lastPrompt()).toContain("<think>\nWhy?\n</think>\n\nSo.[end][user]more");
  });

  test("is read again without the reasoning if the template leaves it out, as a client would send it", async () => {
    const setup = await Setup.with(DROPS);
    await setup.generator.conversations.createSession("", SESSION.id);
    const ids = await setup.ids("<think>Why?</think>So.");
    await setup.ask(ids, keys);
    await setup.ask(ids, { prompts: [chat("more")], ...keys });
    expect(setup.lastRequest.resume).toBeUndefined();
    const prompt = setup.lastPrompt();
    expect(prompt).toContain("[assistant]So.[end][user]more");
    const history = [{ role: "user", content: "hi" }, { role: "assistant", content: "So." }, "more"];
    await setup.ask(ids, { prompts: [chat(...history)] });
    expect(setup.lastPrompt()).toBe(prompt);
  });

  test("continues its state under another effort if the template does not read it", async () => {
    const given = (templateArguments: object) => [{ ...chat("hi"), templateArguments: { ...templateArguments } }];
    for (const [template, continues] of [
      [PLAIN, true],
      [`{% set effort = reasoning_effort %}${PLAIN}`, false],
    ] as const) {
      const setup = await Setup.with(template);
      await setup.generator.conversations.createSession("", SESSION.id);
      await setup.ask(await setup.ids("a"), { prompts: given({ reasoning_effort: "low" }), ...keys });
      await setup.ask(await setup.ids("a"), { prompts: given({ reasoning_effort: "high" }), ...keys });
      expect(setup.lastRequest.resume !== undefined).toBe(continues);
    }
  });

  test("knows its history with the reasoning and without", async () => {
    for (const reasoning of [{}, { reasoning: "Why?" }]) {
      const setup = await Setup.with(KEEPS);
      await setup.generator.conversations.createSession("", SESSION.id);
      await setup.ask(await setup.ids("Why?\n</think>\n\nSo."), keys);
      const history = [{ role: "user", content: "hi" }, { role: "assistant", content: "So.", ...reasoning }, "more"];
      await setup.ask(await setup.ids("end"), { prompts: [chat(...history)], ...keys });
      expect(setup.lastRequest.resume).toBeDefined();
      expect(setup.lastPrompt().match(/\[user\]/g)).toHaveLength(2);
    }
  });
});

describe("continue_final_message", () => {
  const going = (message: object) => {
    const prompt = chat("hi", { role: "assistant", content: "", ...message });
    return { prompts: [{ ...prompt, addGenerationPrompt: false, continueFinalMessage: true }] };
  };

  test("goes on with reasoning that has no answer yet", async () => {
    for (const template of [DROPS, KEEPS]) {
      const setup = await Setup.with(template);
      const answer = await setup.ask(await setup.ids(" not?</think>So."), going({ reasoning: "Why" }));
      expect(setup.lastPrompt()).toMatch(/\[assistant\]<think>\nWhy$/);
      expect(answer).toMatchObject({ reasoning: " not?", content: "So." });
    }
  });

  test("goes on with an answer after its reasoning", async () => {
    const setup = await Setup.with(KEEPS);
    const answer = await setup.ask(await setup.ids(" far. <think>"), going({ reasoning: "Why", content: "So" }));
    expect(setup.lastPrompt()).toMatch(/<think>\nWhy\n<\/think>\n\nSo$/);
    expect(answer).toMatchObject({ reasoning: "", content: " far. " });
  });

  test("goes on with tags in the content", async () => {
    const setup = await Setup.with(PLAIN.replace("[assistant]", "[assistant]{# <think> #}"));
    const answer = await setup.ask(await setup.ids(" not?</think>So."), going({ content: "<think>Why" }));
    expect(answer).toMatchObject({ reasoning: " not?", content: "So." });
  });

  test("is refused if the template does not show the reasoning", async () => {
    const setup = await Setup.with(PLAIN);
    const answer = setup.ask(await setup.ids("a"), going({ reasoning: "Why" }));
    await expect(answer).rejects.toThrow("does not show the last message's reasoning");
  });
});

test("a template learns of reasoning under the names that templates use", async () => {
  for (const name of ["reasoning_content", "reasoning", "thinking"]) {
    const setup = await Setup.with(
      `{% for m in messages %}[{{ m.${name} | default('none') }}]{{ m.content }}{% endfor %}`,
    );
    await setup.ask(await setup.ids("a"), {
      prompts: [chat("hi", { role: "assistant", content: "b", reasoning: "Why" })],
    });
    expect(setup.lastPrompt()).toContain("[none]hi[Why]b");
  }
});

test("a template that begins without reasoning gets an answer without", async () => {
  const setup = await Setup.with(DROPS);
  const prompt = { ...chat("hi"), templateArguments: { enable_thinking: false } };
  const { reasoning, content, usage } = await setup.ask(await setup.ids("So."), { prompts: [prompt] });
  expect(setup.lastPrompt()).toMatch(/<think>\n\n<\/think>\n\n$/);
  expect({ reasoning, content }).toEqual({ reasoning: "", content: "So." });
  expect(usage.reasoningTokens).toBe(0);
});

test("the best of several answers comes with its reasoning", async () => {
  const setup = await Setup.with(PLAIN, "think");
  const answer = await setup.ids("<think>why</think>so");
  const { parts } = await setup.ask(answer, { numChoices: 1, bestOf: 2 });
  expect(parts).toEqual([{ reasoning: "why", content: "so", tokenIds: answer }]);
});
