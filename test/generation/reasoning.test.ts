import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { openingTag, ReasoningSplitter, type SplitText } from "../../src/generation/reasoning.ts";
import { findReasoningTags } from "../../src/tokenizer/reasoning-tags.ts";
import { WORLD_CHAT } from "../../src/tokenizer/world-tokenizer.ts";

const THINK = { open: "<think>", close: "</think>" };

/** Of a whole text. */
function splitAtOnce(text: string, isOpen: boolean): SplitText {
  const begin = /^(\s*<think>)+\s*/.exec(text)?.[0] ?? (isOpen ? /^\s*/.exec(text)![0] : undefined);
  if (begin === undefined) return { reasoning: "", content: text };
  const rest = text.slice(begin.length);
  const at = rest.indexOf("</think>");
  if (at === -1) return { reasoning: rest.trimEnd(), content: "" };
  return { reasoning: rest.slice(0, at).trimEnd(), content: rest.slice(at + "</think>".length).trimStart() };
}

function splitPieces(pieces: readonly string[], seed = ""): SplitText & { readonly splitter: ReasoningSplitter } {
  const splitter = new ReasoningSplitter({ tags: THINK, seed });
  const parts = [...pieces.map((piece) => splitter.push(piece)), splitter.flush()];
  const joined = (part: keyof SplitText) => parts.map((split) => split[part]).join("");
  return { reasoning: joined("reasoning"), content: joined("content"), splitter };
}

const fragment = fc.constantFrom(
  ...["<think>", "</think>", "<think", "</thi", ">", "<", "nk>", " ", "\n\n", "　", "a", "Ω", "😀", "</", "think"],
);
const cutText = fc
  .tuple(
    fc.array(fc.oneof(fragment, fc.string({ unit: "binary", maxLength: 3 })), { maxLength: 14 }),
    fc.array(fc.nat(20)),
  )
  .map(([fragments, cuts]) => {
    const text = fragments.join("");
    const ends = [...new Set(cuts.map((cut) => Math.min(cut, text.length)))].sort((a, b) => a - b);
    return { text, pieces: [...ends, text.length].map((end, i) => text.slice(ends[i - 1] ?? 0, end)) };
  });

describe("a splitter of reasoning", () => {
  it("gives for any cuts what the whole text gives", () => {
    fc.assert(
      fc.property(cutText, fc.boolean(), ({ text, pieces }, isOpen) => {
        const { reasoning, content, splitter } = splitPieces(pieces, isOpen ? "<think>" : "");
        expect({ reasoning, content }).toEqual(splitAtOnce(text, isOpen));
        if (content !== "") expect(text.slice(splitter.contentStart)).toBe(content);
      }),
      { numRuns: 2000 },
    );
  });

  it("of an answer that the prompt begins gives what follows the prompt", () => {
    fc.assert(
      fc.property(cutText, cutText, ({ text: seed }, { text, pieces }) => {
        const { reasoning, content } = splitPieces(pieces, seed);
        const [before, both] = [splitAtOnce(seed, false), splitAtOnce(seed + text, false)];
        // Where the answer's text goes is decided by both, and none of the prompt's is repeated.
        expect(reasoning.length + content.length).toBeLessThanOrEqual(text.length);
        const isPartOfTag = "<think>".startsWith(seed.trim());
        if (before.content !== "" && !isPartOfTag)
          expect({ reasoning, content }).toEqual({ reasoning: "", content: text });
        else if (isPartOfTag)
          expect([seed + text, text].map((whole) => splitAtOnce(whole, false).reasoning)).toContain(reasoning);
        else if (both.content !== "" && both.reasoning !== "") expect(both.content.endsWith(content)).toBe(true);
        if (!isPartOfTag) expect(both.reasoning.endsWith(reasoning)).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });

  it.each<[name: string, pieces: string[], seed: string, reasoning: string, content: string]>([
    ["a tag in pieces", ["<th", "ink>a", "</thi", "nk>", "\n\nb"], "", "a", "b"],
    ["no tag, and white space first", [" ", "b <think>c</think>"], "", "", " b <think>c</think>"],
    ["a second block", ["<think>a</think>b<think>c</think>"], "", "a", "b<think>c</think>"],
    ["no closing tag", ["<think>a", " b\n"], "", "a b", ""],
    ["a part of a closing tag at the end", ["<think>a </th"], "", "a </th", ""],
    ["a closing tag that nothing opened", ["a</think>b"], "", "", "a</think>b"],
    ["a prompt that opens the tag", ["\na</think>b"], "<think>", "a", "b"],
    ["a tag that the prompt has opened already", ["<think>\na</think>b"], "<think>", "a", "b"],
    ["an empty block", ["\n</think>\n\nb"], "<think>", "", "b"],
    ["a prompt with a part of the tag", [">\na</think>\nb"], "<think", "a", "b"],
    ["a prompt with what is no part of a tag", [" you"], "<think", "", " you"],
    ["a message with reasoning that goes on", [" b</think>c"], "<think>a", " b", "c"],
    ["a message that ends within the closing tag", ["nk>c"], "<think>a</thi", "", "c"],
    ["a message that only seems to", ["rd"], "<think>a</thi", "rd", ""],
    ["a message with an answer", [" c</think>"], "<think>a</think>b", "", " c</think>"],
  ])("%s", (_name, pieces, seed, reasoning, content) => {
    expect(splitPieces(pieces, seed)).toMatchObject({ reasoning, content });
  });

  it("holds back nothing that it need not", () => {
    const splitter = new ReasoningSplitter({ tags: THINK, seed: "<think>" });
    expect(splitter.push("a < b")).toEqual({ reasoning: "a < b", content: "" });
    expect(splitter.push(" </")).toEqual({ reasoning: "", content: "" });
    expect(splitter.push("p")).toEqual({ reasoning: " </p", content: "" });
    expect(splitter.push("</think>c ")).toEqual({ reasoning: "", content: "c " });
    expect(splitter.push("<")).toEqual({ reasoning: "", content: "<" });
  });

  it("takes as long per character however much white space it holds back", () => {
    const splitter = new ReasoningSplitter({ tags: THINK, seed: "" });
    const started = process.cpuUsage();
    for (let i = 0; i < 200_000; i++) splitter.push("  ");
    splitter.push("<think>a");
    for (let i = 0; i < 200_000; i++) splitter.push("  ");
    expect(splitter.push("b").reasoning).toHaveLength(400_001);
    expect(process.cpuUsage(started).user / 1000).toBeLessThan(1000);
  });
});

describe("the tags", () => {
  it.each<[template: string, open: string | undefined]>([
    ["{{ messages[0].content }}", undefined],
    ["{{ content.split('</think>')[-1] }}", "<think>"],
    ["Assistant:{% if enable_thinking %} <think{% endif %}", "<think>"],
    ["{{ '<thinking>' }}", "<thinking>"],
    [WORLD_CHAT.template, "<think>"],
    ["{{ '[THINK]' + message.reasoning_content + '[/THINK]' }}", "[THINK]"],
  ])("of the template %s", (template, open) => {
    expect(findReasoningTags("auto", template)?.open).toBe(open);
    expect(findReasoningTags("off", template)).toBeUndefined();
    expect(findReasoningTags("think", template)).toEqual(THINK);
  });

  it.each([
    ["<|assistant|>\n<think>\n", "<think>"],
    ["Assistant: <think", "<think"],
    ["<think>\n\n</think>\n\n", ""],
    ["<think>a", ""],
    ["", ""],
  ])("that the prompt %j opens", (prompt, opened) => {
    expect(openingTag(THINK, prompt)).toBe(opened);
  });
});
