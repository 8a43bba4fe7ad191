import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ChatRenderer, DEFAULT_CHAT_TEMPLATE } from "../../src/tokenizer/chat-template.ts";
import { Template } from "../../src/tokenizer/jinja/template.ts";
import { partsOf } from "../../src/tokenizer/template-parts.ts";

const each = (body: string) => `{% for m in messages %}${body}{% endfor %}`;
const GENERATION = "{% if add_generation_prompt %}<assistant>{% endif %}";

const CHATML = `${each("<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n")}${GENERATION}`;
const COUNTING = each("{{ m.content }}{{ loop.index0 % 2 }}");

const APART: Readonly<Record<string, string>> = {
  "the default": DEFAULT_CHAT_TEMPLATE,
  ChatML: CHATML,
  "a system message where none is given": `${each("{% if loop.first and messages[0]['role'] != 'system' %}Be kind.{% endif %}{{ m.content }}|")}${GENERATION}`,
  "something in front, by the first role": `{% if messages[0].role == 'system' %}(system){% endif %}${each("{{ m.content }}|")}`,
  "a default for the generation prompt": `{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}${each("{{ m.content }}")}${GENERATION}`,
  "a variable that every message sets": each("{% set text = m.content | trim %}{{ text }}{{ text | upper }};"),
  "a variable that is set twice": each("{% set x = 'a' %}{% if m.role == 'user' %}{% set x = 'b' %}{% endif %}{{ x }}"),
  "a variable that some set": each("{% if m.role == 'user' %}{% set x = m.content %}{% endif %}{{ x }}"),
  "a variable that is read before it is set": each("{{ x }}{% set x = m.content %}"),
  "a part of the answer": each("{{ m.content.split('</think>')[-1] }}{{ eos_token }}"),
  "a loop within": each("{% for word in m.content.split(' ') %}{{ word }}_{% endfor %}"),
};

const TOGETHER: Readonly<Record<string, string>> = {
  "the last one otherwise": each("{{ m.content }}{% if loop.last %}!{% endif %}"),
  "a count": COUNTING,
  "their number": `{{ messages | length }}${each("{{ m.content }}")}`,
  "another message": each("{{ m.content }}{{ messages[-1].role }}"),
  "the first one's content": each("{{ messages[0].content }}"),
  "the one before": each("{{ loop.previtem }}{{ m.content }}"),
  "not all of them": "{% for m in messages[1:] %}{{ m.content }}{% endfor %}",
  "some of them": "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
  "another list": "{% set kept = messages %}{% for m in kept %}{{ m.content }}{% endfor %}",
  "a counter": `{% set ns = namespace(n=0) %}${each("{% set ns.n = ns.n + 1 %}{{ ns.n }}{{ m.content }}")}`,
  "an iterator that the first one uses up": `{% set words = ['a'] | map('upper') %}${each("{{ words | list }}{{ m.content }}")}`,
  "a list that grows": `{% set all = [] %}${each("{{ all.append(m.content) }}{{ all | length }}")}`,
  "the time": each("{{ strftime_now('%S') }}{{ m.content }}"),
  "the generation prompt in a message": each("{{ m.content }}{{ add_generation_prompt }}"),
  "the generation prompt in front": `{% if add_generation_prompt %}x{% endif %}${each("{{ m.content }}")}`,
  "an early end": each("{{ m.content }}{% if m.role == 'user' %}{% break %}{% endif %}"),
  "a macro": `{% macro show(m) %}{{ m.content }}{% endmacro %}${each("{{ show(m) }}")}`,
  "words where there is no message": "{% for m in messages %}{{ m.content }}{% else %}none{% endfor %}",
  "a loop within a condition": `{% if bos_token %}${each("{{ m.content }}")}{% endif %}`,
};

test.each(Object.entries(TOGETHER))("%s: messages are not rendered by themselves", (_, template) => {
  expect(partsOf(Template.parse(template))).toBeUndefined();
});

describe.each(Object.entries(APART))("%s", (_, chatTemplate) => {
  const specialTokens = { bos_token: "<s>", eos_token: "</s>" };
  const renderer = new ChatRenderer({ chatTemplate, specialTokens, addsBos: true });
  const content = fc.oneof(fc.string(), fc.constantFrom("", " a ", "x</think>y", "Be kind.", "a b c"));
  const message = fc.record({ role: fc.constantFrom("system", "user", "assistant"), content });

  test("a conversation's text ends with its last messages, rendered alone", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(message, { minLength: 1, maxLength: 5 }),
        fc.array(message, { maxLength: 4 }),
        fc.boolean(),
        async (past, messages, addGenerationPrompt) => {
          const options = { addGenerationPrompt, continueFinalMessage: false };
          const tail = (given: typeof past) =>
            renderer.renderTail({ ...options, messages: given, firstRole: past[0]!.role });
          const { text: before } = await renderer.render({ ...options, messages: past });
          const { text: whole } = await renderer.render({ ...options, messages: [...past, ...messages] });
          const end = (await tail([]))!;
          expect(before.endsWith(end)).toBe(true);
          expect(before.slice(0, before.length - end.length) + (await tail(messages))).toBe(whole);
        },
      ),
      { numRuns: 60 },
    );
  });
});

test("a tail can be left open for the model to continue", async () => {
  const chatTemplate = CHATML;
  const renderer = new ChatRenderer({ chatTemplate, specialTokens: {}, addsBos: false });
  const options = { addGenerationPrompt: false, continueFinalMessage: true, firstRole: "user" };
  const last = { role: "assistant", content: "Once upon" };
  expect(await renderer.renderTail({ ...options, messages: [last] })).toBe("<|im_start|>assistant\nOnce upon");
  for (const content of ["", "end", "|"]) {
    const tail = await renderer.renderTail({ ...options, messages: [{ role: "assistant", content }] });
    expect(tail).toBe(`<|im_start|>assistant\n${content}`);
  }
});

test("if a tail cannot be rendered alone, all is rendered", async () => {
  const options = { messages: [{ role: "user", content: "a" }], firstRole: "user" };
  const closed = { ...options, addGenerationPrompt: true, continueFinalMessage: false };
  const of = (chatTemplate: string) => new ChatRenderer({ chatTemplate, specialTokens: {}, addsBos: false });
  expect(await of(CHATML).renderTail({ ...closed, template: CHATML })).toBeUndefined();
  expect(await of(CHATML).renderTail({ ...closed, continueFinalMessage: true })).toBeUndefined();
  expect(await of(COUNTING).renderTail(closed)).toBeUndefined();
  expect(await of(each("{{ raise_exception('no') }}")).renderTail(closed)).toBeUndefined();
  expect(await of("{% for").renderTail(closed)).toBeUndefined();
});

test("whatever else decides the text changes the renderer's identity", () => {
  const identity = (chatTemplate: string, eos: string) =>
    new ChatRenderer({ chatTemplate, specialTokens: { eos_token: eos }, addsBos: false }).identity;
  expect(identity("a", "</s>")).toBe(identity("a", "</s>"));
  expect(new Set([identity("a", "</s>"), identity("b", "</s>"), identity("a", "<end>")]).size).toBe(3);
});
