/** Constraints as grammars: exactly the texts that they mean, and clear words for what they cannot say. */
import { describe, expect, it } from "vitest";
import type { DenseMambaError } from "../../src/errors.ts";
import type { Constraint, JsonSchema } from "../../src/grammar/constraint.ts";
import { utf8Ranges } from "../../src/grammar/program.ts";
import { matcherOf } from "../helpers/grammar-texts.ts";

const schema = (value: JsonSchema, strict = false): Constraint => ({ type: "json_schema", schema: value, strict });
const regex = (pattern: string): Constraint => ({ type: "regex", pattern });
const grammar = (text: string): Constraint => ({ type: "grammar", grammar: text });

function refusal(constraint: Constraint): DenseMambaError {
  try {
    matcherOf(constraint);
  } catch (error) {
    return error as DenseMambaError;
  }
  throw new Error(`${JSON.stringify(constraint).slice(0, 200)} was not refused`);
}

/** Texts over a few characters, all up to a length. */
function* textsOver(characters: readonly string[], maxLength: number): Generator<string> {
  let last = [""];
  yield "";
  for (let length = 1; length <= maxLength; length++) {
    last = last.flatMap((text) => characters.map((character) => text + character));
    yield* last;
  }
}

describe("regular expressions", () => {
  const CHARACTERS = ["a", "b", '"', "\\", "1", "é", "\n", "😀"];
  const PATTERNS = [
    ...["a", "", "a|b", "a*b", "(a|b){2,3}", "[ab1]+", "[^a]", "[^a\\n]{2}", ".", "\\d|\\s", "\\w+", "\\W", "\\S\\D"],
    ...["(?:a|(b1))*", "a{2}", "a{1,}", "[\\u0080-\\uffff]", "\\u{1F600}", "[é-😀]", '["\\\\]+', "\\\\", "(a?){2}b"],
    ...["^a$", "^(a|b)$", "a$|^b", "\\x61[\\b]?", "[a-]", "a+?b"],
  ];

  it.each(PATTERNS)("%j is ECMAScript's, in plain text and in strings", (pattern) => {
    const whole = new RegExp(`^(?:${pattern})$`, "u");
    const part = new RegExp(pattern, "u");
    const plain = matcherOf(regex(pattern));
    const quoted = matcherOf(schema({ type: "string", pattern }));
    const wrong: string[] = [];
    for (const text of textsOver(CHARACTERS, 3)) {
      const isPlain = /[$^]/.test(pattern) || (plain(text) === "whole") === whole.test(text);
      if (!isPlain || (quoted(JSON.stringify(text)) === "whole") !== part.test(text)) wrong.push(text);
    }
    expect(wrong).toEqual([]);
  });

  it.each(["^(?:a$|b1$)", "(?=a)b", "a\\b", "(a)\\1", "\\p{L}", "a^b", "(?<!a)b", "a$b"])(
    "%j is refused: no grammar says that",
    (pattern) => {
      expect(refusal(regex(pattern))).toMatchObject({ code: "unsupported_value" });
    },
  );

  it.each(["(", "a{2,1}", "[b-a]", "*"])("%j is no regular expression", (pattern) => {
    expect(refusal(regex(pattern))).toMatchObject({ code: "invalid_value" });
  });

  it.each(["[]", "a[]b", "(?:[]|[])+"])("%j matches nothing, and says so", (pattern) => {
    expect(refusal(regex(pattern)).message).toBe("matches no text at all");
  });

  it("backtracking that is catastrophic elsewhere is none here", () => {
    const match = matcherOf(regex("(a+)+b|(a|a)*c"));
    expect(match("a".repeat(5000))).toBe("part");
    expect(match(`${"a".repeat(5000)}b`)).toBe("whole");
  });
});

it("ranges of code points are their UTF-8", () => {
  const bytesOf = (point: number) => Buffer.from(String.fromCodePoint(point), "utf8");
  const wrong: string[] = [];
  for (const [first, last] of [
    [0, 0x10ffff],
    [0x7f, 0x80],
    [0x7ff, 0x800],
    [0x90, 0x3041],
    [0xffff, 0x10000],
    [0x12345, 0x103456],
  ] as const) {
    const sequences = utf8Ranges(first, last);
    const has = (bytes: Uint8Array) =>
      sequences.some(
        (ranges) =>
          ranges.length === bytes.length && ranges.every(([low, high], i) => low <= bytes[i]! && bytes[i]! <= high),
      );
    for (let point = 0; point <= 0x10ffff; point += point < 0x900 ? 1 : 61) {
      if (point >= 0xd800 && point <= 0xdfff) continue;
      if (has(bytesOf(point)) !== (first <= point && point <= last)) wrong.push(point.toString(16));
    }
  }
  expect(wrong).toEqual([]);
});

it("broken UTF-8 is no character", () => {
  const match = matcherOf(schema({ type: "string" }));
  for (const bytes of [
    [0xff],
    [0xed, 0xa0, 0x80],
    [0xc0, 0x80],
    [0xe0, 0x80, 0x80],
    [0xf4, 0x90, 0x80, 0x80],
    [0x80],
  ]) {
    expect(match(Uint8Array.of(0x22, ...bytes, 0x22))).toBe("none");
  }
  expect(match('"\\ud83d"')).toBe("none");
  expect(match('"\\u00e9\\n"')).toBe("whole");
});

describe("numbers", () => {
  const BOUNDS = [
    { minimum: 0, maximum: 1 },
    { exclusiveMinimum: 0, exclusiveMaximum: 1.5 },
    { minimum: -12, maximum: 107 },
    { minimum: -0.5, exclusiveMaximum: 2.25 },
    { exclusiveMinimum: -3 },
    { maximum: 19.5 },
    { minimum: 1e-3, maximum: 1e3 },
  ];
  it.each(BOUNDS)("between %j", (bounds) => {
    const {
      minimum = -Infinity,
      exclusiveMinimum = -Infinity,
      maximum = Infinity,
      exclusiveMaximum = Infinity,
    } = bounds as Record<string, number>;
    const isIn = (value: number) =>
      value >= minimum && value > exclusiveMinimum && value <= maximum && value < exclusiveMaximum;
    const [integers, numbers] = ["integer", "number"].map((type) => matcherOf(schema({ type, ...bounds })));
    const wrong: string[] = [];
    for (let thousandths = -15_000; thousandths <= 120_000; thousandths += thousandths > 30_000 ? 97 : 1) {
      const value = thousandths / 1000;
      const text = String(value);
      if (text === "-0" || /e/.test(text)) continue;
      if ((numbers!(text) === "whole") !== isIn(value)) wrong.push(`the number ${text}`);
      if ((integers!(text) === "whole") !== (Number.isInteger(value) && isIn(value))) wrong.push(`the integer ${text}`);
    }
    expect(wrong).toEqual([]);
    for (const text of ["-0", "01", "+1", "1.", ".5", "1e2", "--1"]) expect(integers!(text), text).not.toBe("whole");
  });

  it("no bounds leave none, and those that contradict each other say so", () => {
    expect(matcherOf(schema({ type: "number" }))("-12.5e-3")).toBe("whole");
    expect(refusal(schema({ type: "integer", minimum: 2, maximum: 1 })).message).toBe("matches no text at all");
    expect(refusal(schema({ type: "integer", exclusiveMinimum: 1, exclusiveMaximum: 2 })).message).toBe(
      "matches no text at all",
    );
  });
});

describe("schemas", () => {
  it.each<[JsonSchema, whole: string[], none: string[]]>([
    [
      {
        type: "object",
        properties: { a: { type: "null" }, b: { type: "null" }, c: { type: "null" } },
        required: ["b"],
      },
      ['{"b": null}', '{"a": null, "b": null}', '{"b": null, "c": null}', '{"a": null, "b": null, "c": null}'],
      ["{}", '{"a": null}', '{"c": null, "b": null}', '{"b":null}', '{"b": null, "d": null}', '{"b": null, }'],
    ],
    [
      { type: "object", properties: { a: { type: "null" }, b: { type: "null" } } },
      ["{}", '{"a": null}', '{"b": null}', '{"a": null, "b": null}'],
      ['{, "b": null}', '{"b": null, "a": null}'],
    ],
    [
      {
        type: "object",
        properties: { a: { type: "null" }, ab: { type: "null" } },
        additionalProperties: { type: "integer" },
      },
      ["{}", '{"b": 1}', '{"abc": 1}', '{"": 1}', '{"a": null, "c": 2, "d": 3}'],
      ['{"a": 1}', '{"ab": 1}', '{"\\u0061": 1}', '{"c": null}'],
    ],
    [{ type: "object", additionalProperties: false }, ["{}"], ['{"a": 1}']],
    [
      { type: "array", items: { type: "integer" }, minItems: 1, maxItems: 2 },
      ["[1]", "[1, 2]"],
      ["[]", "[1, 2, 3]", "[1,2]"],
    ],
    [
      { type: "array", prefixItems: [{ type: "null" }, { type: "boolean" }], minItems: 1 },
      ["[null]", "[null, true]"],
      ["[]", "[true]", "[null, true, 1]"],
    ],
    [
      { type: "array", items: [{ type: "null" }], additionalItems: { type: "boolean" } },
      ["[]", "[null, true, false]"],
      ["[true]"],
    ],
    [{ type: "string", minLength: 2, maxLength: 3 }, ['"ab"', '"😀é\\n"', '"\\u0041bc"'], ['"a"', '"abcd"']],
    [{ type: "string", maxLength: 10_000 }, [`"${"é".repeat(10_000)}"`], [`"${"é".repeat(10_001)}"`]],
    [{ enum: ["a", 'b"', { x: [1] }] }, ['"a"', '"b\\""', '{"x": [1]}'], ['"b', "a"]],
    [{ type: ["integer", "null"] }, ["1", "null"], ['"a"', "1.5"]],
    [{ type: "integer", enum: [1, "a", 2.5] }, ["1"], ['"a"', "2.5"]],
    [true, ["1", '{"a": [true]}', '"x"'], ["", "tru e"]],
    [
      { anyOf: [{ $ref: "#/$defs/a~1b" }, { type: "array", items: { $ref: "#" } }], $defs: { "a/b": { const: 0 } } },
      ["0", "[0, [0], []]"],
      ["1", "[1]"],
    ],
    [
      { allOf: [{ minimum: 3 }, { maximum: 5, type: "integer" }, { type: ["number", "string"] }] },
      ["3", "5"],
      ["2", "6", '"a"'],
    ],
    [
      {
        type: "object",
        properties: { a: { type: "integer" } },
        allOf: [{ additionalProperties: false, properties: { b: true } }],
      },
      ["{}"],
      ['{"a": 1}'],
    ],
    [{ enum: [{ a: 1, b: 2 }, 3], allOf: [{ enum: [{ b: 2, a: 1 }] }] }, ['{"a": 1, "b": 2}'], ["3"]],
    [{ type: "integer", multipleOf: 1, format: "int32", "x-order": 1, nullable: true }, ["7"], ["null"]],
    [{ $id: "https://example.com/s", properties: { a: { type: "null" } }, required: ["a"] }, ['{"a": null}'], ["{}"]],
  ])("%j", (value, whole, none) => {
    const match = matcherOf(schema(value));
    for (const text of whole) expect(match(text), text).toBe("whole");
    for (const text of none) expect(match(text), text).not.toBe("whole");
  });

  it("strict closes objects that say nothing of other members", () => {
    const open = { type: "object", properties: { a: { type: "object" } }, required: ["a"] };
    expect(matcherOf(schema(open))('{"a": {"b": 1}}')).toBe("whole");
    expect(matcherOf(schema(open, true))('{"a": {"b": 1}}')).toBe("none");
    expect(matcherOf(schema(open, true))('{"a": {}}')).toBe("whole");
  });

  it.each<[JsonSchema, code: string, path: string, message: string]>([
    [{ properties: { a: { not: {} } } }, "unsupported_value", ".properties.a.not", "is not supported"],
    [{ items: { madeUp: 1 } }, "unsupported_value", ".items.madeUp", "is not supported"],
    [{ anyOf: [{}, { if: {} }] }, "unsupported_value", ".anyOf[1].if", "is not supported"],
    [{ type: "object", patternProperties: {} }, "unsupported_value", ".patternProperties", "is not supported"],
    [{ $ref: "https://example.com/s" }, "unsupported_value", ".$ref", "must be a path within the schema"],
    [{ $ref: "other.json#/a" }, "unsupported_value", ".$ref", "must be a path within the schema"],
    [{ $ref: "#/$defs/none" }, "invalid_value", ".$ref", "which the schema does not have"],
    [{ $ref: "#/__proto__" }, "invalid_value", ".$ref", "which the schema does not have"],
    [{ $ref: "#" }, "invalid_value", "", "refers to itself without a value in between"],
    [
      { $defs: { a: { $ref: "#/$defs/b" }, b: { allOf: [{ $ref: "#/$defs/a" }] } }, $ref: "#/$defs/a" },
      "invalid_value",
      ".$defs.a",
      "refers to itself",
    ],
    [{ type: "stringy" }, "invalid_value", ".type", 'got "stringy"'],
    [{ type: "string", minLength: -1 }, "invalid_value", ".minLength", "got -1"],
    [{ type: "string", maxLength: 10_001 }, "unsupported_value", ".maxLength", "at most 10000; got 10001"],
    [{ type: "string", pattern: "a", maxLength: 3 }, "unsupported_value", ".maxLength", "beside pattern"],
    [{ type: "string", pattern: "(" }, "invalid_value", ".pattern", "must be a regular expression"],
    [{ type: "string", pattern: "a".repeat(16_385) }, "unsupported_value", ".pattern", "over 16384 characters"],
    [{ type: "string", pattern: "a{20000}" }, "unsupported_value", ".pattern", "at most 10000 times"],
    [{ type: "string", format: "iri" }, "unsupported_value", ".format", '"iri"; supported are date'],
    [{ type: "number", multipleOf: 0.1 }, "unsupported_value", ".multipleOf", "is not supported, except 1"],
    [{ type: "array", uniqueItems: true }, "unsupported_value", ".uniqueItems", "is not supported"],
    [{ enum: [] }, "invalid_value", ".enum", "at least one item"],
    [{ enum: [1], minimum: 0 }, "unsupported_value", ".minimum", "beside enum"],
    [{ oneOf: [{ type: "integer" }, { type: "number" }] }, "unsupported_value", ".oneOf[1]", "use anyOf"],
    [
      { oneOf: [{ const: { a: 1, b: [2] } }, { const: { b: [2], a: 1 } }] },
      "unsupported_value",
      ".oneOf[1]",
      "use anyOf",
    ],
    [{ allOf: [{ minimum: "5" }, { minimum: 3 }] }, "invalid_value", ".allOf[0].minimum", 'a number; got "5"'],
    [{ maxItems: 3, allOf: [{ maxItems: null }] }, "invalid_value", ".allOf[0].maxItems", "at least 0; got null"],
    [{ properties: 5 }, "invalid_value", ".properties", "must be an object; got 5"],
    [{ properties: { a: 5 } }, "invalid_value", ".properties.a", "must be a schema"],
    [{ required: "a" }, "invalid_value", ".required", "must be a list of strings"],
    [{ minimum: 1, minLength: 1 }, "unsupported_value", "", "keywords of several types"],
  ])("%j is refused at its path", (value, code, param, message) => {
    const error = refusal(schema(value));
    expect(error).toMatchObject({ code, param });
    expect(error.message).toContain(message);
  });

  it.each<JsonSchema>([
    false,
    { type: "object", properties: { a: { $ref: "#" } }, required: ["a"] },
    { type: "array", items: { $ref: "#" }, minItems: 1 },
    { allOf: [{ type: "string" }, { type: "integer" }] },
    { type: "array", minItems: 3, maxItems: 2 },
    { type: "object", required: ["a"], additionalProperties: false },
  ])("%j matches nothing, and says so", (value) => {
    expect(refusal(schema(value))).toMatchObject({ code: "invalid_value", message: "matches no text at all" });
  });

  it("a branch that never ends is left out", () => {
    const endless = { type: "object", properties: { a: { $ref: "#/$defs/endless" } }, required: ["a"] };
    const match = matcherOf(schema({ anyOf: [{ $ref: "#/$defs/endless" }, { type: "null" }], $defs: { endless } }));
    expect(match("null")).toBe("whole");
    expect(match("{")).toBe("none");
  });
});

describe("grammars in EBNF", () => {
  it.each<[string, whole: string[], none: string[]]>([
    ['root ::= "a" b* # comment\nb ::= "," [0-9]{2}', ["a", "a,12,34"], ["a,1", "b"]],
    ['root ::= ("x" | "y"\n | "z")+ "\\n" | ""', ["xyz\n", ""], ["x"]],
    ["root ::= [^a-c\\]]? .", ["d😀", "é"], ["ab"]],
    ['root ::= "\\x41\\u00e9\\U0001f600\\"\\\\"', ['Aé😀"\\'], ["A"]],
    ['expr-1 ::= "(" root ")"\nroot ::= expr-1 | "n"', ["n", "((n))"], ["((n)"]],
    ['root ::= "a"{2,} "b"{0,1}', ["aa", "aaab"], ["a", "aabb"]],
    ["root ::= [a\\-z-]+", ["a-z"], ["b"]],
  ])("%j", (text, whole, none) => {
    const match = matcherOf(grammar(text));
    for (const one of whole) expect(match(one), one).toBe("whole");
    for (const one of none) expect(match(one), one).not.toBe("whole");
  });

  it.each([
    ['a ::= "x"', "there is no rule root"],
    ['root ::= b\nroot ::= "x"', "line 2: the rule root is there twice"],
    ["root ::= b", "there is no rule b"],
    ['root ::= "x', "line 1: a string ends with a quote"],
    ['root ::= ("x"', "a group ends with )"],
    ['root ::= "x" (="y")', "lookahead is not supported"],
    ['root ::= "x"{3,2}', "counts are ascending"],
    ["root ::= [b-a]", "a range of characters goes up"],
    ["root ::= [a", "within a class"],
    ['root ::= "\\ud800"', "this is no character"],
    ["not a grammar", "a rule begins with its name and ::="],
    ["", "there is no rule root"],
    ['root ::= root "a" | "b"', "left recursion is not supported"],
    ['root ::= a? root "x" | "y"\na ::= "z"*', "left recursion is not supported"],
    ['root ::= "a" root', "matches no text at all"],
  ])("%j is refused: %s", (text, message) => {
    expect(refusal(grammar(text)).message).toContain(message);
  });
});

describe("tags", () => {
  const tag = (name: string) => ({
    begin: `<call>{"name": "${name}", "arguments": `,
    schema: { type: "object", properties: { x: { type: "integer" } }, required: ["x"] },
    strict: true,
    end: "}</call>",
  });
  const call = (name: string, value = "1") => `<call>{"name": "${name}", "arguments": {"x": ${value}}}</call>`;

  it("stand in free text", () => {
    const match = matcherOf({
      type: "tagged",
      tags: [tag("a"), tag("b")],
      triggers: ["<call>"],
      atLeastOne: false,
      stopAfterFirst: false,
    });
    for (const text of ["", "free <cal <<call", `so ${call("a")} and ${call("b")}`, `<${call("a")}`])
      expect(match(text), text).toBe("whole");
    for (const text of [call("c"), call("a", "true"), "x <call>y"]) expect(match(text), text).toBe("none");
    expect(match("x <call>")).toBe("part");
  });

  it("may have to come, once", () => {
    const first = matcherOf({
      type: "tagged",
      tags: [tag("a")],
      triggers: ["<call>"],
      atLeastOne: true,
      stopAfterFirst: true,
    });
    expect(first(call("a"))).toBe("whole");
    expect(first(`${call("a")} `)).toBe("none");
    expect(first("so")).toBe("none");
    const then = matcherOf({
      type: "tagged",
      tags: [tag("a")],
      triggers: ["<call>"],
      atLeastOne: true,
      stopAfterFirst: false,
    });
    expect(then(`${call("a")} so ${call("a")}`)).toBe("whole");
    const upTo = matcherOf({
      type: "tagged",
      tags: [tag("a")],
      triggers: ["<call>"],
      atLeastOne: false,
      stopAfterFirst: true,
    });
    expect(upTo(`so ${call("a")}`)).toBe("whole");
    expect(upTo(`so ${call("a")}.`)).toBe("none");
  });

  it("make a list", () => {
    const parts = { type: "tag_list", begin: "[", tags: [tag("a"), tag("b")], separator: ", ", end: "]" } as const;
    const list = matcherOf({ ...parts, stopAfterFirst: false });
    expect(list(`[${call("a")}, ${call("b")}]`)).toBe("whole");
    expect(list("[]")).toBe("none");
    expect(matcherOf({ ...parts, stopAfterFirst: true })(`[${call("a")}, `)).toBe("none");
  });

  it("triggers may overlap", () => {
    const tags = ["<ab", "b<c"].map((begin) => ({ begin, schema: { const: 1 }, strict: true, end: ">" }));
    const match = matcherOf({
      type: "tagged",
      tags,
      triggers: ["<ab", "b<c"],
      atLeastOne: false,
      stopAfterFirst: false,
    });
    expect(match("<a<ab1>b<c1><b<b<c1>")).toBe("whole");
    expect(match("<a<ab2")).toBe("none");
  });
});

describe("reasoning", () => {
  const answer = schema({ type: "boolean" });
  it("comes before the content, or not at all", () => {
    const match = matcherOf(answer, { open: "<think>", close: "</think>" });
    expect(match("true")).toBe("whole");
    expect(match("<think>so { </thin </think>\n\nfalse")).toBe("whole");
    expect(match("<think>so")).toBe("part");
    expect(match("<think>so</think>no")).toBe("none");
    expect(match(" so")).toBe("none");
  });
  it("may have begun", () => {
    const match = matcherOf(answer, { open: "", close: "</think>" });
    expect(match("true</think>true")).toBe("whole");
    expect(match("true")).toBe("part");
    expect(matcherOf(answer, { open: ">", close: "</think>" })("></think>true")).toBe("whole");
  });
});

describe("what is hostile", () => {
  const nested = (depth: number): JsonSchema => {
    let value: JsonSchema = { type: "null" };
    for (let i = 0; i < depth; i++) value = { anyOf: [value, { type: "array", items: value }] };
    return value;
  };
  const product = (count: number) => ({
    allOf: Array.from({ length: count }, (_, i) => ({ anyOf: [{ minimum: i }, { maximum: i }] })),
  });
  it.each<[string, Constraint]>([
    ["100,000 values", schema({ enum: Array.from({ length: 100_000 }, (_, i) => `value ${i}`) })],
    ["alternatives that multiply", schema(product(30))],
    ["a depth of 1,000", schema(nested(1000))],
    [
      "20,000 properties",
      schema({ properties: Object.fromEntries(Array.from({ length: 20_000 }, (_, i) => [`p${i}`, {}])) }),
    ],
    [
      "a chain of 5,000 references",
      schema({
        $ref: "#/$defs/d0",
        $defs: Object.fromEntries(
          Array.from({ length: 5001 }, (_, i) => [`d${i}`, i === 5000 ? {} : { $ref: `#/$defs/d${i + 1}` }]),
        ),
      }),
    ],
    ["nested parentheses", regex(`${"(".repeat(1900)}a${")".repeat(1900)}`)],
    ["nested groups", grammar(`root ::= ${"(".repeat(30_000)}"a"${")".repeat(30_000)}`)],
    ["nested counts", regex("((a{0,9999}){0,9999}){0,9999}")],
    ["a count of what may be empty", regex("(a?){0,9999}b")],
    ["much text", grammar(`root ::= ${'"aaaaaaaaaa" '.repeat(5000)}`)],
  ])("%s is refused or compiled, soon", (_name, constraint) => {
    const startMs = performance.now();
    try {
      const match = matcherOf(constraint);
      match("a".repeat(100));
      match('{"p1');
    } catch (error) {
      expect((error as DenseMambaError).code).toMatch(/_value$/);
    }
    // Some 20 ms when nothing else runs.
    expect(performance.now() - startMs).toBeLessThan(2000);
  });

  it("texts of any length stay within the automaton's memory", () => {
    const match = matcherOf(grammar('root ::= "(" root ")" | "x"'));
    expect(match(`${"(".repeat(20_000)}x${")".repeat(20_000)}`)).toBe("whole");
  });
});
