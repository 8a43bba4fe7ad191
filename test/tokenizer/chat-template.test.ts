import { afterAll, expect, test, vi } from "vitest";
import {
  ChatRenderer,
  type ChatRenderOptions,
  MAX_TEMPLATE_LENGTH,
  type RendererSettings,
} from "../../src/tokenizer/chat-template.ts";
import { loadTokenizer } from "../../src/tokenizer/load.ts";
import { byteLevelJson, writeTokenizer } from "../helpers/tiny-tokenizers.ts";

const CHATML = `{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}`;

const MESSAGES = [
  { role: "system", content: "Be brief." },
  { role: "user", content: " Hi! " },
  { role: "assistant", content: " Hello." },
  { role: "user", content: "Bye." },
];

const opened: ChatRenderer[] = [];

function renderer(chatTemplate?: string, settings: RendererSettings = { requestTimeoutMs: 5000 }) {
  const specialTokens = { bos_token: "<s>", eos_token: "</s>" };
  const using = new ChatRenderer({ chatTemplate, specialTokens, addsBos: true }, settings);
  opened.push(using);
  return using;
}

afterAll(() => {
  for (const using of opened) using.close();
});

const render = (using: ChatRenderer, options: Partial<ChatRenderOptions> = {}) =>
  using.render({ messages: MESSAGES, addGenerationPrompt: true, continueFinalMessage: false, ...options });

test("without a template a chat is a plain transcript, and the user's turn stops the model", async () => {
  expect(await render(renderer())).toEqual({
    text: "<s>Be brief.\n\nUser: Hi!\n\nAssistant: Hello.\n\nUser: Bye.\n\nAssistant:",
    stopStrings: ["\nUser:"],
  });
});

test("the default template writes no BOS where the tokenizer adds none", async () => {
  const plain = new ChatRenderer({ chatTemplate: undefined, specialTokens: { bos_token: "<s>" }, addsBos: false });
  expect((await render(plain)).text).toMatch(/^Be brief/);
});

test("a default-rendered answer is a prefix of the next rendering", async () => {
  const using = renderer();
  const first = await render(using, { messages: MESSAGES.slice(0, 2) });
  const next = await render(using);
  expect(next.text.startsWith(`${first.text} Hello.`)).toBe(true);
});

test("the model's own template has the variables of Hugging Face", async () => {
  const template =
    "{{ bos_token }}|{{ eos_token }}|{{ add_generation_prompt }}|{{ tools is defined }}|{{ strftime_now('%Y') | length }}|{{ extra }}";
  const { text, stopStrings } = await render(renderer(template), { templateArguments: { extra: "x" } });
  expect(text).toBe("<s>|</s>|True|True|4|x");
  expect(stopStrings).toEqual([]);
});

test("raise_exception in the model's template is the request's fault", async () => {
  const using = renderer("{{ raise_exception('roles must alternate') }}");
  await expect(render(using)).rejects.toMatchObject({
    code: "invalid_value",
    param: "messages",
    message: expect.stringContaining("roles must alternate"),
  });
});

test("a malformed template of the model is an error of the checkpoint when it is used", async () => {
  await expect(render(renderer("{% for %}"))).rejects.toMatchObject({ code: "invalid_checkpoint" });
});

test("continuing the final message leaves it open", async () => {
  const messages = [...MESSAGES.slice(0, 2), { role: "assistant", content: "Once upon a " }];
  const options = { messages, addGenerationPrompt: false, continueFinalMessage: true };
  expect((await render(renderer(CHATML), options)).text).toMatch(/<\|im_start\|>assistant\nOnce upon a $/);
  expect((await render(renderer(), options)).text).toMatch(/Assistant: Once upon a$/);
  await expect(render(renderer(), { ...options, addGenerationPrompt: true })).rejects.toMatchObject({
    code: "invalid_value",
    param: "continue_final_message",
  });
});

test.each([
  // Nothing, and what template and other messages say as well.
  ...["", " ", "\n", "|", "im", "end", "<|im_end|>", "assistant", "Hi", "a  ", "CONTINUE_FINAL_MESSAGE_TAG x"].map(
    (last) => ({ last, shown: last }),
  ),
])("continuing $last leaves exactly that open", async ({ last, shown }) => {
  const options = { addGenerationPrompt: false, continueFinalMessage: true };
  for (const role of ["assistant", "user"]) {
    const messages = [
      { role: "user", content: "Hi" },
      { role, content: last },
    ];
    const { text } = await render(renderer(CHATML), { ...options, messages });
    expect(text).toBe(`<|im_start|>user\nHi<|im_end|>\n<|im_start|>${role}\n${shown}`);
  }
});

test("a final message that the template trims is left open after its text", async () => {
  const trimming = renderer("{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</>{% endfor %}");
  const options = { addGenerationPrompt: false, continueFinalMessage: true };
  const open = async (content: string) => {
    const messages = [
      { role: "user", content: "a" },
      { role: "assistant", content },
    ];
    return (await render(trimming, { ...options, messages })).text;
  };
  expect(await open(" a \n")).toBe("<user>a</><assistant>a");
  expect(await open(" \n")).toBe("<user>a</><assistant>");
  expect(await open("</>")).toBe("<user>a</><assistant></>");
});

test.each([
  "{% for m in messages %}{{ m.content[:3] }}{% endfor %}",
  "{% for m in messages %}{{ m.content | lower }}{% endfor %}",
  "{% for m in messages[:-1] %}{{ m.content }}{% endfor %}",
  "{% for m in messages %}{{ m.content.split('</think>')[-1] }}{% endfor %}",
])("a final message that %s does not show as it is cannot be continued", async (template) => {
  const messages = [
    { role: "user", content: "Well </think> Hello" },
    { role: "assistant", content: "Well </think> Hello" },
  ];
  const options = { messages, addGenerationPrompt: false, continueFinalMessage: true };
  await expect(render(renderer(template), options)).rejects.toMatchObject({
    code: "invalid_value",
    param: "continue_final_message",
  });
});

test("no messages, and arguments that would replace the template's variables, are refused", async () => {
  await expect(render(renderer(), { messages: [] })).rejects.toMatchObject({
    code: "invalid_value",
    param: "messages",
  });
  await expect(render(renderer(), { templateArguments: { messages: [] } })).rejects.toMatchObject({
    code: "invalid_value",
    param: "chat_template_kwargs",
  });
});

test("a request's template replaces the model's, stop strings included", async () => {
  const { text, stopStrings } = await render(renderer(), { template: "{{ messages | length }} {{ bos_token }}" });
  expect(text).toBe("4 <s>");
  expect(stopStrings).toEqual([]);
});

const QUADRATIC =
  "{% for m in messages %}{% set ns = namespace(k=0) %}{% for n in messages %}{% set ns.k = ns.k + 1 %}{% endfor %}{{ ns.k }}{% endfor %}";

const forBombs = renderer(undefined, { requestTimeoutMs: 1000 });

const BOMBS: readonly (readonly [string, string])[] = [
  ["never ends", "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}"],
  ["calls itself", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"],
  ["has a loop in itself", "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}"],
  ["goes through a great range", "{{ range(2000000) | join(',') | length }}"],
  ["repeats a text", "{{ ('a' * 10 ** 9) | length }}"],
  ["repeats a list", "{{ ([1] * 10 ** 9) | length }}"],
  ["replaces nothing by much", "{{ ('a' * 4000000).replace('', 'a' * 4000000) | length }}"],
  ["joins what is long", "{{ (['a' * 1000000] * 100000) | join | length }}"],
  ["indents by much", "{{ 'a' | tojson(indent=10 ** 12) }}{{ ('a\nb' * 100000) | indent(10 ** 6) | length }}"],
  ["pads", "{{ 'a'.center(10 ** 12) | length }}"],
  [
    "doubles",
    "{% set ns = namespace(l=['x' * 1000]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
  ],
  [
    "makes ever longer texts",
    "{% set ns = namespace(l=[]) %}{% for i in range(100) %}{% set ns.l = ns.l + [('a' * 4000000).replace('a', 'b') ~ i] %}{% endfor %}",
  ],
  [
    "nests its output",
    "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}",
  ],
  ["renders too much", `{% for i in range(100000) %}${"x".repeat(100)}{% endfor %}`],
  ["is malformed", "{% if %}"],
  ["raises", "{{ raise_exception('no') }}"],
  ["is too long", " ".repeat(MAX_TEMPLATE_LENGTH + 1)],
  ["opens without end", "{{ ".padEnd(60_000, "(")],
  ["opens many blocks", "{% if a %}".repeat(6000)],
  ["chains filters", `{{ x${" | list".repeat(9000)} }}`],
];

test.each(BOMBS)("a request's template that %s is refused without blocking the event loop", async (_, template) => {
  const stall = await shortestStall(async () => {
    const rendered = render(forBombs, { template });
    await expect(rendered).rejects.toMatchObject({ code: "invalid_value", param: "chat_template" });
  });
  expect(stall).toBeLessThan(200);
  // Whatever became of the process, the next one is rendered.
  expect((await render(forBombs, { template: "as ever" })).text).toBe("as ever");
});

test.each(BOMBS.slice(0, 4))(
  "a model's template that %s is refused without blocking the event loop",
  async (_, template) => {
    const using = renderer(template, { ownTimeoutMs: 500 });
    const stall = await shortestStall(async () => {
      await expect(render(using)).rejects.toMatchObject({ code: "invalid_value", param: "messages" });
    });
    expect(stall).toBeLessThan(200);
  },
);

test("the model's template takes its time off the event loop, and small chats do not wait for it", async () => {
  const using = renderer(QUADRATIC, { ownTimeoutMs: 20_000 });
  const messages = Array.from({ length: 2000 }, () => ({ role: "user", content: "w" }));
  let isDone = false;
  const long = render(using, { messages }).then(({ text }) => {
    isDone = true;
    return text;
  });
  expect((await render(using, { messages: MESSAGES })).text).toBe("4444");
  expect(isDone).toBe(false);
  expect(await long).toBe("2000".repeat(2000));
});

test.each([
  ["compares long texts", "{% for i in range(9999) %}{{ 'x' if a == b }}{% endfor %}"],
  ["looks long texts up", "{% for i in range(9999) %}{{ 'x' if a in d }}{{ d[b] }}{% endfor %}"],
  ["reads digits", "{% for i in range(9999) %}{{ digits | int }}{{ digits | float }}{% endfor %}"],
  [
    "searches from the start of long texts",
    "{% for i in range(9999) %}{% for c in a %}{{ loop.length }}{% break %}{% endfor %}{% endfor %}",
  ],
  [
    "searches from the end of long texts",
    "{% for i in range(9999) %}{{ many | last }}{{ many.copy() | length }}{% endfor %}",
  ],
  ["indexes beyond the BMP", "{% for i in range(9999) %}{{ chili[i] }}{{ chili[i:i+1] }}{% endfor %}"],
])("a model's template that %s does little of it on the event loop", async (_, template) => {
  const a = "a".repeat(1_000_000);
  const many = Object.fromEntries(Array.from({ length: 15_000 }, (_, i) => [`k${i}`, 0]));
  const templateArguments = {
    a,
    b: `${a.slice(1)}a`,
    d: { x: 1 },
    digits: `${"1".repeat(250_000)}x`,
    many,
    chili: "🌶".repeat(9999),
  };
  const using = renderer(template, { ownTimeoutMs: 300 });
  const stall = await shortestStall(async () => {
    await render(using, { templateArguments }).catch(() => {});
  });
  expect(stall).toBeLessThan(200);
});

test("the time limit begins with the rendering, not with the request", async () => {
  const using = renderer(undefined, { requestTimeoutMs: 1000 });
  const [endless, short] = await Promise.allSettled([
    render(using, { template: BOMBS[0]![1] }),
    render(using, { template: "after a second" }),
  ]);
  expect(endless).toMatchObject({ reason: { message: expect.stringContaining("longer than 1000 ms") } });
  expect(short).toMatchObject({ value: { text: "after a second" } });
});

test("the number of waiting renderings is bounded, and closing fails them", async () => {
  const using = renderer();
  const all = Array.from({ length: 100 }, () =>
    render(using, { template: "x" }).then(
      ({ text }) => text,
      ({ code }) => code,
    ),
  );
  const given = await Promise.all(all);
  expect(given.filter((one) => one === "queue_full")).toHaveLength(35);
  expect(given.filter((one) => one === "x")).toHaveLength(65);
  const waiting = [render(using, { template: BOMBS[0]![1] }), render(using, { template: "x" })];
  const outcomes = Promise.allSettled(waiting);
  using.close();
  for (const outcome of await outcomes) expect(outcome).toMatchObject({ reason: { code: "shutting_down" } });
  await expect(render(using, { template: "x" })).rejects.toMatchObject({ code: "shutting_down" });
});

test("an aborted rendering ends, and delays no others", async () => {
  const using = renderer(undefined, { requestTimeoutMs: 60_000 });
  const [first, second] = [new AbortController(), new AbortController()];
  const endless = (signal: AbortSignal) => render(using, { template: BOMBS[0]![1], signal });
  const left = [endless(first.signal), endless(second.signal)];
  const outcomes = Promise.allSettled(left);
  const stays = render(using, { template: "x" });
  second.abort();
  await expect(left[1]).rejects.toMatchObject({ code: "aborted" });
  first.abort();
  expect((await stays).text).toBe("x");
  for (const outcome of await outcomes) expect(outcome).toMatchObject({ reason: { code: "aborted" } });
  await expect(endless(first.signal)).rejects.toMatchObject({ code: "aborted" });
});

/**
 * How long the event loop stood still at most, in milliseconds: the best of a few tries, on a
 * machine that others use too.
 */
async function shortestStall(work: () => Promise<void>): Promise<number> {
  let shortest = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 5 && shortest >= 200; i++) {
    let [longest, last] = [0, performance.now()];
    const look = () => {
      longest = Math.max(longest, performance.now() - last - 5);
      last = performance.now();
    };
    const ticking = setInterval(look, 5);
    await work().finally(() => clearInterval(ticking));
    look();
    shortest = Math.min(shortest, longest);
  }
  return shortest;
}

test("a request's template sees neither files nor environment", async () => {
  vi.stubEnv("SECRET", "hidden");
  const template = "{{ process is defined }}{{ require is defined }}{{ messages.constructor is defined }}";
  expect((await render(renderer(), { template })).text).toBe("FalseFalseFalse");
  vi.unstubAllEnvs();
});

test("of two named templates the one for tools shows chats with tools", async () => {
  const [plain, withTools] = [
    "\n[{{ messages[0].content }}]\n\n",
    "\n{{ tools[0].function.name }}:\n{% if true %}\n  {% endif %}\n\n",
  ];
  const dir = await writeTokenizer({
    json: byteLevelJson(),
    config: {
      chat_template: [
        { name: "default", template: plain },
        { name: "tool_use", template: withTools },
      ],
    },
  });
  const { chatTemplate } = (await loadTokenizer(dir))!;
  const [alone, forTools] = [renderer(plain), renderer(withTools)];
  const tools = [{ name: "f", parameters: {} }];
  const expected = [await render(alone), await render(forTools, { tools })].map(({ text }) => text);
  expect(expected).toEqual(["\n[Be brief.]\n", "\nf:\n"]);
  const both = renderer(chatTemplate);
  expect([await render(both), await render(both, { tools })].map(({ text }) => text)).toEqual(expected);
});
