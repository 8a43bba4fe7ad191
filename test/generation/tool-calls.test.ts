/** Calls of tools in the texts of each format, whole and in pieces. */
import { describe, expect, it } from "vitest";
import { type AnswerPiece, ToolCallSplitter } from "../../src/generation/tool-calls.ts";
import { findToolFormat, type ToolFormatName } from "../../src/tokenizer/tool-formats.ts";

const NAMES = new Set(["get_weather", "get_time"]);
/** Mistral's newest templates have this. */
const NAMED = "[ARGS]";

interface Split {
  content: string;
  calls: { name: string; arguments: string }[];
}

function fold(pieces: readonly AnswerPiece[]): Split {
  const split: Split = { content: "", calls: [] };
  for (const piece of pieces) {
    if (piece.type === "content") split.content += piece.text;
    else if (piece.type === "call") split.calls.push({ name: piece.name, arguments: "" });
    else if (piece.type === "arguments") split.calls.at(-1)!.arguments += piece.text;
    else split.calls.pop();
  }
  return split;
}

function splitter(format: ToolFormatName, { isSingle = false, template = "" } = {}): ToolCallSplitter {
  return new ToolCallSplitter({ format: findToolFormat(format, template), names: NAMES, isSingle });
}

function split(using: ToolCallSplitter, texts: readonly string[], isCut = false): Split {
  return fold([...texts.flatMap((text) => using.push(text)), ...using.flush({ isCut })]);
}

const PARIS = { name: "get_weather", arguments: '{"city": "Paris"}' };
const OSLO = { name: "get_time", arguments: '{"zone": "Oslo {}[] \\"x\\" \\\\", "n": [1, {"a": null}]}' };

const GOLDEN: [format: ToolFormatName, text: string, expected: Split, template?: string][] = [
  ["hermes", "Hello.", { content: "Hello.", calls: [] }],
  [
    "hermes",
    `<tool_call>\n{"name": "get_weather", "arguments": ${PARIS.arguments}}\n</tool_call>`,
    { content: "", calls: [PARIS] },
  ],
  [
    "hermes",
    `Let me see.\n\n<tool_call>\n{"name": "get_weather", "arguments": ${PARIS.arguments}}\n</tool_call>\n<tool_call>\n{"name": "get_time", "arguments": ${OSLO.arguments}}\n</tool_call>`,
    { content: "Let me see.", calls: [PARIS, OSLO] },
  ],
  // As Hermes 2 Pro writes them, without what closes the last one.
  [
    "hermes",
    `<tool_call>{"arguments": ${PARIS.arguments}, "name": "get_weather"}</tool_call><tool_call>{"name":"get_time","arguments":${OSLO.arguments}}`,
    { content: "", calls: [PARIS, OSLO] },
  ],
  [
    "hermes",
    `So:\n<tool_call>\n{"name": "get_weather", "arguments": ${PARIS.arguments}}\n</tool_call>\nThat is it.`,
    { content: "So:\n\nThat is it.", calls: [PARIS] },
  ],
  [
    "hermes",
    '<tool_call>{"name": "get_time"}</tool_call>',
    { content: "", calls: [{ name: "get_time", arguments: "{}" }] },
  ],
  ["llama3_json", `{"name": "get_weather", "parameters": ${PARIS.arguments}}`, { content: "", calls: [PARIS] }],
  [
    "llama3_json",
    `<|python_tag|>{"type": "function", "name": "get_weather", "parameters": ${PARIS.arguments}}; {"name": "get_time", "parameters": ${OSLO.arguments}}`,
    { content: "", calls: [PARIS, OSLO] },
  ],
  ["llama3_json", "<|python_tag|>print(1)", { content: "<|python_tag|>print(1)", calls: [] }],
  [
    "mistral",
    `[TOOL_CALLS] [{"name": "get_weather", "arguments": ${PARIS.arguments}, "id": "abcdef123"}, {"name": "get_time", "arguments": ${OSLO.arguments}}]`,
    { content: "", calls: [PARIS, OSLO] },
  ],
  [
    "mistral",
    `Well: [TOOL_CALLS]get_weather[ARGS]${PARIS.arguments}[TOOL_CALLS]get_time[CALL_ID]abcdef123[ARGS] ${OSLO.arguments}`,
    { content: "Well:", calls: [PARIS, OSLO] },
    NAMED,
  ],
  ["mistral", `[TOOL_CALLS]get_weather${PARIS.arguments}`, { content: "", calls: [PARIS] }, NAMED],
  [
    "json",
    `I'll look.\n{"name": "get_weather", "arguments": ${PARIS.arguments}}\n  {"name": "get_time", "arguments": ${OSLO.arguments}}\n`,
    { content: "I'll look.", calls: [PARIS, OSLO] },
  ],
  ["json", `[{"name": "get_weather", "arguments": ${PARIS.arguments}}]`, { content: "", calls: [PARIS] }],
  [
    "json",
    `The sum is {"name": "get_weather", "arguments": {}} here.`,
    {
      content: `The sum is {"name": "get_weather", "arguments": {}} here.`,
      calls: [],
    },
  ],
];

describe("texts of each format", () => {
  it.each(GOLDEN)("%s: %s", (format, text, expected, template = "") => {
    expect(split(splitter(format, { template }), [text])).toEqual(expected);
    expect(split(splitter(format, { template }), [...text]), "by characters").toEqual(expected);
    for (let at = 1; at < text.length; at++) {
      const parts = [text.slice(0, at), text.slice(at)];
      expect(split(splitter(format, { template }), parts), `cut at ${at}`).toEqual(expected);
    }
  });
});

describe("what is no call is text, and nothing of it is lost", () => {
  const call = `{"name": "get_weather", "arguments": ${PARIS.arguments}}`;
  it.each<[ToolFormatName, string]>([
    ["hermes", "<tool_call>"],
    ["hermes", "<tool_call></tool_call>"],
    ["hermes", "<tool_call>get_weather</tool_call>"],
    ["hermes", '<tool_call>\n{"name": "get_weather", "arguments": {"city": }}\n</tool_call>'],
    ["hermes", '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}\n</tool_call>'],
    ["hermes", '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Par'],
    ["hermes", '<tool_call>\n{"name": "get_weather", "arguments": "Paris"}\n</tool_call>'],
    ["hermes", '<tool_call>\n{"name": "other", "arguments": {}}\n</tool_call>'],
    ["hermes", '<tool_call>\n{"name": "get_weather", "name": "get_time", "arguments": {}}\n</tool_call>'],
    ["hermes", '<tool_call>\n{"arguments": {"city": "Paris"}}\n</tool_call>'],
    ["hermes", `<tool_call>\n{"city": "Paris"}\n</tool_call>`],
    ["hermes", "a <tool_cal"],
    ["hermes", `${call}`],
    ["llama3_json", '{"title": "A", "parts": [{"name": "get_weather"}]}'],
    ["llama3_json", '{"name": "Bob"}'],
    ["mistral", "[TOOL_CALLS] nothing"],
    ["mistral", "[TOOL_CALLS] [1, 2]"],
    ["mistral", "[TOOL_CALLS]other[ARGS]{}"],
    ["mistral", "[TOOL_CALLS]get_weather[ARGS]{"],
    ["json", "[1, 2]"],
    ["json", '{\n  "title": "A",\n  "list": [\n    {"a": 1}\n  ]\n}\n'],
    ["json", "  \n white \n"],
  ])("%s: %s", (format, text) => {
    const template = text.includes(NAMED) ? NAMED : "";
    expect(split(splitter(format, { template }), [text])).toEqual({ content: text, calls: [] });
    expect(split(splitter(format, { template }), [...text]), "by characters").toEqual({ content: text, calls: [] });
  });

  it("a call after a malformed one counts", () => {
    const text = `<tool_call>{"name": "other"}</tool_call> <tool_call>${call}</tool_call>`;
    const expected = { content: '<tool_call>{"name": "other"}</tool_call>', calls: [PARIS] };
    expect(split(splitter("hermes"), [text])).toEqual(expected);
    expect(split(splitter("hermes"), [...text])).toEqual(expected);
  });
});

describe("as the text comes", () => {
  it("only what may begin a call is held back", () => {
    const using = splitter("hermes");
    const shown = ["So", " ", "<", "tool", "x <tool_call", ">", "no"].map((text) => fold(using.push(text)).content);
    expect(shown).toEqual(["So", "", "", "", " <toolx", "", " <tool_call>no"]);
  });

  it("plain JSON is released with the first name that no call has", () => {
    const using = splitter("json");
    const shown = ['{"', "tit", 'le"', ": 1", "}"].map((text) => fold(using.push(text)).content);
    expect(shown).toEqual(["", "", '{"title"', ": 1", "}"]);
  });

  it("a call begins with its name, and its arguments follow piece by piece", () => {
    const using = splitter("hermes");
    const texts = [
      "<tool_call>",
      '\n{"name": "get_',
      'weather", "arg',
      'uments": {"ci',
      'ty": "Pa',
      'ris"}',
      "}\n</tool_call>",
    ];
    expect(texts.map((text) => using.push(text))).toEqual([
      [],
      [],
      [],
      [
        { type: "call", name: "get_weather" },
        { type: "arguments", text: '{"ci' },
      ],
      [{ type: "arguments", text: 'ty": "Pa' }],
      [{ type: "arguments", text: 'ris"}' }],
      [],
    ]);
    expect(using.flush({ isCut: false })).toEqual([]);
    expect(using.numCalls).toBe(1);
  });

  it("a call that proves malformed is withdrawn, and all of it is text", () => {
    const using = splitter("hermes");
    using.push('a <tool_call>{"name": "get_weather", "arguments": {"city"');
    expect(using.push(": }}")).toEqual([
      { type: "withdrawal" },
      { type: "content", text: ' <tool_call>{"name": "get_weather", "arguments": {"city": }}' },
    ]);
    expect(using.numCalls).toBe(0);
  });

  it("a call that is cut off by a limit stays as it is", () => {
    const text = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Par';
    const expected = { content: "", calls: [{ name: "get_weather", arguments: '{"city": "Par' }] };
    expect(split(splitter("hermes"), [text], true)).toEqual(expected);
  });

  it.each<[ToolFormatName, string, string, string]>([
    ["hermes", `<tool_call>\n{"name": "get_time", "arguments": {}}`, "\n</tool_call>", "\n<tool_call>"],
    ["llama3_json", `{"name": "get_time", "parameters": {}`, "}", '; {"name"'],
    ["mistral", `[TOOL_CALLS] [{"name": "get_time", "arguments": {}}`, "]", ""],
    ["mistral", `[TOOL_CALLS] [{"name": "get_time", "arguments": {}}`, ', {"name": "get_time"', "}]"],
    ["mistral", "[TOOL_CALLS]get_time[ARGS]{", "}", "[TOOL_CALLS]get_time[ARGS]{}"],
    ["json", `{"name": "get_time", "arguments": {}`, "}", '\n{"name": "get_time"}'],
  ])("where one call is allowed, %s ends with what closes it", (format, before, last, behind) => {
    const using = splitter(format, { isSingle: true, template: before.includes(NAMED) ? NAMED : "" });
    const pieces = using.push(before);
    expect(using.isDone).toBe(false);
    pieces.push(...using.push(last));
    expect(using.isDone).toBe(true);
    pieces.push(...using.push(behind), ...using.flush({ isCut: false }));
    expect(fold(pieces)).toEqual({ content: "", calls: [{ name: "get_time", arguments: "{}" }] });
  });

  it("long arguments and long texts that are no call take time in proportion to their length", () => {
    const time = (text: string) => {
      let bestMs = Number.POSITIVE_INFINITY;
      for (let round = 0; round < 3; round++) {
        const using = splitter("json");
        const before = process.cpuUsage();
        for (let at = 0; at < text.length; at += 4) using.push(text.slice(at, at + 4));
        using.flush({ isCut: false });
        const { user, system } = process.cpuUsage(before);
        bestMs = Math.min(bestMs, (user + system) / 1000);
      }
      return bestMs;
    };
    const call = (length: number) => `{"name": "get_time", "arguments": {"a": "${"x".repeat(length)}"`;
    const lines = (length: number) => '{"name": "get_time", "arguments": {"a": [\n'.repeat(length / 40);
    for (const make of [call, lines]) {
      time(make(20_000));
      expect(time(make(200_000)) / time(make(20_000))).toBeLessThan(40);
    }
  });
});

describe("the format that a template shows", () => {
  it.each<[template: string, begin: string]>([
    ["{{ '<tool_call>' }}", '<tool_call>\n{"name": "f", "arguments": '],
    ["<|python_tag|>", '{"name": "f", "parameters": '],
    ["{{ '\"parameters\": ' }}", '{"name": "f", "parameters": '],
    ['{{ "Respond with {\\"name\\": …, \\"parameters\\": …}" }}', '{"name": "f", "parameters": '],
    ["<tool_call> with <|python_tag|>", '<tool_call>\n{"name": "f", "arguments": '],
    ["[AVAILABLE_TOOLS][TOOL_CALLS] [", '{"name": "f", "arguments": '],
    ["[TOOL_CALLS]name[ARGS]", "[TOOL_CALLS]f[ARGS]"],
    ["{{ message.content }}", '{"name": "f", "arguments": '],
  ])("%s", (template, begin) => {
    expect(findToolFormat("auto", template).call("f").begin).toBe(begin);
  });

  it("gives way to an option", () => {
    expect(findToolFormat("mistral", "<tool_call>").open).toBe("[TOOL_CALLS]");
  });
});
