import { expect, test, vi } from "vitest";
import { ChatRenderer, type ChatRenderOptions } from "../../src/tokenizer/chat-template.ts";
import { MAX_TEMPLATE_LENGTH, TemplateSandbox } from "../../src/tokenizer/template-sandbox.ts";

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

function renderer(chatTemplate?: string, timeoutMs = 5000) {
  const specialTokens = { bos_token: "<s>", eos_token: "</s>" };
  return new ChatRenderer({ chatTemplate, specialTokens, addsBos: true }, new TemplateSandbox({ timeoutMs }));
}

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
  expect(text).toBe("<s>|</s>|true|false|4|x");
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

test("a malformed template of the model's own is the checkpoint's fault, told when it is used", async () => {
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

test("of a final message that the template trims, what is shown stays open", async () => {
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

test.each([
  ["never ends", "{% for i in range(1000000) %}{% for j in range(1000000) %}{% endfor %}{% endfor %}"],
  ["fills the memory", "{% for i in range(1000000000000) %}{% endfor %}"],
  ["renders too much", `{% for i in range(100000) %}${"x".repeat(100)}{% endfor %}`],
  ["is malformed", "{% if %}"],
  ["raises", "{{ raise_exception('no') }}"],
  ["is too long", " ".repeat(MAX_TEMPLATE_LENGTH + 1)],
])("a request's template that %s is refused, and the event loop goes on", async (_, template) => {
  let numTicks = 0;
  const ticking = setInterval(() => numTicks++, 10);
  const startedAtMs = performance.now();
  await expect(render(renderer(undefined, 1000), { template })).rejects.toMatchObject({
    code: "invalid_value",
    param: "chat_template",
  });
  clearInterval(ticking);
  // A blocked loop would not have ticked at all.
  expect(numTicks).toBeGreaterThanOrEqual(Math.floor((performance.now() - startedAtMs) / 100) - 1);
});

test("only a few templates run at a time, the others wait their turn", async () => {
  const sandbox = new TemplateSandbox();
  const results = await Promise.all(Array.from({ length: 6 }, (_, i) => sandbox.render("{{ i }}", { i })));
  expect(results).toEqual(["0", "1", "2", "3", "4", "5"]);
  await expect(sandbox.render("{{ raise_exception('x') }}", {})).rejects.toMatchObject({ code: "invalid_value" });
  expect(await sandbox.render("again", {})).toBe("again");
});

test("a request's template sees neither files nor environment", async () => {
  vi.stubEnv("SECRET", "hidden");
  const template = "{{ process is defined }}{{ require is defined }}{{ messages.constructor is defined }}";
  expect((await render(renderer(), { template })).text).toBe("falsefalsefalse");
  vi.unstubAllEnvs();
});
