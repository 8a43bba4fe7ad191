/**
 * Chat templates and chats at random, of all that public templates use, from a seed. Most of them
 * make sense.
 */

/** A small generator of pseudo-random numbers (mulberry32). */
class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = seed;
  }

  below(n: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let x = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return Math.floor((((x ^ (x >>> 14)) >>> 0) / 2 ** 32) * n);
  }

  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  of<Item>(items: readonly Item[]): Item {
    return items[this.below(items.length)]!;
  }

  many<Item>(most: number, make: () => Item): Item[] {
    return Array.from({ length: this.below(most + 1) }, make);
  }
}

const TEXTS = [
  ...[
    "",
    " ",
    "\n",
    "a",
    "Hi",
    "  two words \n",
    "Hello, World!",
    "hELLO wORLD",
    "it's",
    'say "x"',
    `'"`,
    "back\\slash",
  ],
  ...[
    "</think>",
    "<think>why</think>\n\n  if a:\n    b",
    "a,b,,c",
    "x-y (z) [q]",
    "1",
    " 42 ",
    "2.5",
    "-3",
    "1e3",
    "1_0",
  ],
  ...[
    "é",
    "ÀÉÎ",
    "🌶a🌶",
    "日本語",
    "Σας ΟΔΟΣ",
    "ß",
    "İi",
    "ǆ",
    "e\u0301",
    "\u00a0x\u00a0",
    "a\u2028b",
    "a\x85b",
    "\ufeffx",
  ],
  ...[
    "\x1cx\x1f",
    "a\tb",
    "line\r\nend",
    "one\ntwo\n\nthree",
    "{{ x }}",
    "%s",
    "&<>",
    "true",
    "None",
    "0",
    "\x00\x7f",
    "\u200b",
  ],
];
const ROLES = ["system", "user", "assistant", "tool"];
const KEYS = ["role", "content", "name", "type", "text", "a", "b", "items", "keys", "count", "x y"];

export interface Pair {
  readonly template: string;
  readonly variables: Readonly<Record<string, unknown>>;
  readonly nowMs: number;
}

export function pairs(seed: number, count: number): Pair[] {
  return Array.from({ length: count }, (_, i) => {
    const dice = new Dice(seed * 1_000_003 + i * 7919);
    const variables = chat(dice);
    const source = new Source(dice).template();
    const template = dice.chance(6) ? source.replaceAll("\n", dice.of(["\r\n", "\r"])) : source;
    return { template, variables, nowMs: 1_600_000_000_000 + dice.below(2 ** 31) * 100 };
  });
}

function chat(dice: Dice): Record<string, unknown> {
  const json = (depth: number): unknown => {
    if (depth > 0 && dice.chance(35)) return dice.many(3, () => json(depth - 1));
    if (depth > 0 && dice.chance(40)) return Object.fromEntries(dice.many(3, () => [dice.of(KEYS), json(depth - 1)]));
    return dice.of<() => unknown>([
      () => dice.of(TEXTS),
      () => dice.of(TEXTS),
      () => dice.below(2000) - 200,
      () => dice.of([0.5, -1.25, 1e-7, 1.5e-300, 3.25e2, 17.125]),
      () => dice.of([true, false, null]),
    ])();
  };
  const message = () => ({
    role: dice.of(ROLES),
    content: dice.chance(90) ? dice.of(TEXTS) : dice.of([null, [{ type: "text", text: dice.of(TEXTS) }], []]),
    ...(dice.chance(15) && { name: dice.of(TEXTS) }),
    ...(dice.chance(15) && { tool_calls: [{ type: "function", function: { name: "f", arguments: json(2) } }] }),
  });
  return {
    messages: dice.many(5, message),
    tools: dice.chance(70)
      ? null
      : dice.many(2, () => ({ type: "function", function: { name: "get", parameters: json(3) } })),
    documents: dice.chance(85) ? null : dice.many(2, () => ({ title: dice.of(TEXTS), text: dice.of(TEXTS) })),
    bos_token: "<s>",
    eos_token: "</s>",
    add_generation_prompt: dice.chance(50),
    flag: dice.of<unknown>([true, false, true, false, null, 0, 1, "", "no"]),
    n: dice.below(12) - 4,
    f: dice.of([0.5, -2.5, 3.25, 1e-5, 123456.789]),
    s: dice.of(TEXTS),
    t: dice.of(TEXTS),
    list: dice.many(4, () => json(1)),
    numbers: dice.many(5, () => dice.below(20) - 5),
    words: dice.many(5, () => dice.of(TEXTS)),
    d: Object.fromEntries(dice.many(4, () => [dice.of(KEYS), json(2)])),
    any: json(3),
  };
}

type Kind = "text" | "number" | "flag" | "list" | "dict" | "any";

/** Writes one template. */
class Source {
  readonly #dice: Dice;
  /** Names that are set, by what they probably are. */
  #names: Record<Kind, string[]> = {
    text: ["s", "t", "bos_token", "messages[0].content", "messages[-1]['role']"],
    number: ["n", "f", "messages | length"],
    flag: ["flag", "add_generation_prompt"],
    list: ["messages", "list", "numbers", "words", "words", "tools"],
    dict: ["d", "messages[0]", "d"],
    any: ["any", "missing", "none", "documents", "tools", "d.a", "messages[7]"],
  };
  #numLoops = 0;
  #macros: string[] = [];

  constructor(dice: Dice) {
    this.#dice = dice;
  }

  template(): string {
    return this.#block(3, 1 + this.#dice.below(5));
  }

  /** Names that are set inside stay known: reading them outside is part of the test. */
  #block(depth: number, most: number): string {
    return this.#dice.many(most, () => this.#statement(depth)).join("");
  }

  #text(): string {
    return this.#dice.of([
      ...["\n", " ", "\n\n", "  \n  ", "x", " <|a|>\n", "é🌶", "\t", "{ ", "}", "a { b } c", "#", "%", "{ { ", "", "|"],
      ...["\n    ", "end\n", "'\"", "\\n", "- ", " -"],
    ]);
  }

  #statement(depth: number): string {
    const dice = this.#dice;
    const text = dice.chance(50) ? this.#text() : "";
    if (depth === 0) return text + this.#output();
    const make = dice.of<() => string>([
      ...[1, 2, 3, 4, 5].map(() => () => this.#output()),
      ...[1, 2, 3].map(() => () => this.#if(depth)),
      ...[1, 2, 3].map(() => () => this.#for(depth)),
      ...[1, 2, 3].map(() => () => this.#set()),
      () => this.#setBlock(depth),
      () => this.#macro(depth),
      () => this.#callBlock(depth),
      () => this.#namespace(),
      () => `${this.#tag(`filter ${this.#filterName("text")}`)}${this.#block(depth - 1, 2)}${this.#tag("endfilter")}`,
      () =>
        `${this.#tag(`with ${this.#newName("any")} = ${this.#expression("any", 2)}`)}${this.#block(depth - 1, 2)}${this.#tag("endwith")}`,
      () => `{#${this.#sign()} {{ comment }} ${this.#text()}${this.#sign()}#}`,
      () => `{%${this.#sign()} raw ${dice.of(["", "-"])}%} {{ raw }} {% if %}\n${this.#tag("endraw")}`,
      () => `${this.#tag("generation")}${this.#block(depth - 1, 2)}${this.#tag("endgeneration")}`,
      () => (this.#numLoops > 0 ? this.#tag(dice.of(["break", "continue"])) : ""),
      () => (this.#numLoops > 0 ? `{{ ${this.#loopField()} }}` : ""),
    ]);
    return text + make();
  }

  #sign(): string {
    return this.#dice.of(["", "", "", "-", "-", "+"]);
  }

  #tag(inner: string): string {
    return `{%${this.#sign()} ${inner} ${this.#sign()}%}`;
  }

  #output(): string {
    const kind = this.#dice.of<Kind>(["text", "text", "text", "number", "flag", "any", "list", "dict"]);
    return `{{${this.#dice.of(["", "", "-", "+"])} ${this.#expression(kind, 3)} ${this.#dice.of(["", "", "-"])}}}`;
  }

  #if(depth: number): string {
    const dice = this.#dice;
    let source = this.#tag(`if ${this.#expression("flag", 3)}`) + this.#block(depth - 1, 3);
    if (dice.chance(25)) source += this.#tag(`elif ${this.#expression("flag", 2)}`) + this.#block(depth - 1, 2);
    if (dice.chance(45)) source += this.#tag("else") + this.#block(depth - 1, 2);
    return source + this.#tag("endif");
  }

  #for(depth: number): string {
    const dice = this.#dice;
    const isPairs = dice.chance(20);
    const iterable = isPairs
      ? dice.of(["d.items()", "d | items", "d | dictsort", "messages[0].items()"])
      : this.#expression("list", 2);
    const target = isPairs ? `${this.#newName("text")}, ${this.#newName("any")}` : this.#newName("dict");
    const condition = dice.chance(20) ? ` if ${this.#expression("flag", 2)}` : "";
    const isRecursive = dice.chance(5);
    this.#numLoops++;
    let body = this.#block(depth - 1, 4);
    if (isRecursive) body += "{% if loop.depth < 3 %}{{ loop(numbers) }}{% endif %}";
    this.#numLoops--;
    const otherwise = dice.chance(15) ? this.#tag("else") + this.#block(depth - 1, 1) : "";
    return `${this.#tag(`for ${target} in ${iterable}${condition}${isRecursive ? " recursive" : ""}`)}${body}${otherwise}${this.#tag("endfor")}`;
  }

  #loopField(): string {
    const fields = [
      "index",
      "index0",
      "first",
      "last",
      "length",
      "revindex",
      "revindex0",
      "depth",
      "previtem",
      "nextitem",
    ];
    const calls = [`cycle(${this.#expression("any", 1)}, 'b')`, `changed(${this.#expression("any", 1)})`];
    return `loop.${this.#dice.of([...fields, ...fields, ...calls])}`;
  }

  #newName(kind: Kind): string {
    const name = this.#dice.of(["x", "y", "z", "m", "ns_", "s", "last"]);
    this.#names[kind] = [...this.#names[kind], name];
    return name;
  }

  #set(): string {
    const kind = this.#dice.of<Kind>(["text", "number", "flag", "list", "dict", "any"]);
    const value = this.#expression(kind, 3);
    if (this.#dice.chance(8))
      return this.#tag(
        `set ${this.#newName("any")}, ${this.#newName("any")} = ${value}, ${this.#expression("any", 1)}`,
      );
    return this.#tag(`set ${this.#newName(kind)} = ${value}`);
  }

  #setBlock(depth: number): string {
    const filter = this.#dice.chance(25) ? ` | ${this.#filterName("text")}` : "";
    const body = this.#block(depth - 1, 2);
    return `${this.#tag(`set ${this.#newName("text")}${filter}`)}${body}${this.#tag("endset")}`;
  }

  #namespace(): string {
    const value = this.#expression("any", 2);
    if (this.#dice.chance(40)) return `${this.#tag(`set ns = namespace(k=0, v=${value})`)}`;
    this.#names.any = [...this.#names.any, "ns.k", "ns.v"];
    return this.#dice.of([
      `{% set ns = namespace(k=${value}) %}{% for i in numbers %}{% set ns.k = i %}{% endfor %}{{ ns.k }}`,
      `{% if ns is defined %}{% set ns.v = ${value} %}{% endif %}`,
      `{% set ns.k = ${value} %}`,
      "{{ ns.k }}{{ ns.nothing }}",
    ]);
  }

  #macro(depth: number): string {
    const dice = this.#dice;
    const name = dice.of(["show", "item", "wrap"]);
    this.#macros.push(name);
    const [a, b] = [this.#newName("any"), this.#newName("any")];
    const parameters = a === b ? a : dice.of([`${a}, ${b}`, `${a}, ${b}=${this.#expression("any", 1)}`, a, ""]);
    const numLoops = this.#numLoops;
    this.#numLoops = 0;
    const body =
      this.#block(depth - 1, 3) + dice.of(["", "", "{{ caller() if caller }}", "{{ varargs }}", "{{ kwargs }}"]);
    this.#numLoops = numLoops;
    return `${this.#tag(`macro ${name}(${parameters})`)}${body}${this.#tag("endmacro")}{{ ${this.#call(name)} }}`;
  }

  #call(name: string): string {
    const given = () => this.#expression("any", 1);
    return `${name}(${this.#dice.of([() => "", given, () => `${given()}, ${given()}`, () => `x=${given()}`, given])()})`;
  }

  #callBlock(depth: number): string {
    if (this.#macros.length === 0) return "";
    const numLoops = this.#numLoops;
    this.#numLoops = 0;
    const body = this.#block(depth - 1, 2);
    this.#numLoops = numLoops;
    return `${this.#tag(`call ${this.#call(this.#dice.of(this.#macros))}`)}${body}${this.#tag("endcall")}`;
  }

  /** Of this kind as a rule. Where it is not, most often jinja2 refuses. */
  #expression(given: Kind, depth: number): string {
    const dice = this.#dice;
    const kind = dice.chance(2) ? "any" : given;
    if (depth === 0 || dice.chance(20)) return this.#leaf(kind);
    const of = (part: Kind) => this.#expression(part, depth - 1);
    const inner = (part: Kind) => this.#operand(part, depth - 1);
    switch (kind) {
      case "text":
        return this.#textual(of, inner);
      case "number":
        return dice.of<() => string>([
          () => `${inner("number")} ${dice.of(["+", "-", "*", "+", "-", "//", "%", "/"])} ${inner("number")}`,
          () =>
            `${inner("number")} ${dice.of(["+", "-", "*"])} ${inner("number")} ${dice.of(["+", "-", "*", "//", "%"])} ${inner("number")}`,
          () => `${inner("list")} | ${dice.of(["length", "count"])}`,
          () => `${inner("text")} | length`,
          () => `${inner("any")} | int${dice.of(["", "", "(7)"])}`,
          () => `${inner("any")} | float`,
          () => `-${inner("number")}`,
          () => `${inner("number")} | abs`,
          () => `${inner("number")} | round${dice.of(["", "(1)", "(method='floor')", "(method='ceil')"])}`,
          () => `${inner("number")} ** 2`,
          () => `numbers | ${dice.of(["sum", "min", "max", "first", "last"])}`,
          () => `${inner("text")}.${dice.of(["count", "find", "rfind", "index"])}(${of("text")})`,
          () => `${inner("text")} | wordcount`,
        ])();
      case "flag":
        return this.#flag(of, inner);
      case "list":
        return this.#list(of, inner);
      case "dict":
        return dice.of<() => string>([
          () => `{'a': ${of("any")}, ${JSON.stringify(dice.of(KEYS))}: ${of("any")}}`,
          () => `dict(a=${of("any")})`,
          () => `${inner("list")}[${dice.of(["0", "-1", "1"])}]`,
          () => `${inner("list")} | ${dice.of(["first", "last"])}`,
          () => "{}",
        ])();
      case "any":
        return dice.of<() => string>([
          ...(["text", "number", "flag", "list", "dict"] as const).map((part) => () => of(part)),
          () =>
            `${inner("dict")}${dice.of([".a", ".content", "['role']", ".items", ".keys()", ".values()", ".items()", "['x y']", ".missing"])}`,
          () => `${inner("dict")}.get(${of("text")}${dice.of(["", `, ${of("any")}`])})`,
          () => `${inner("any")} if ${inner("flag")} else ${inner("any")}`,
          () => `${inner("any")} if ${inner("flag")}`,
          () => `${inner("any")} ${dice.of(["and", "or"])} ${inner("any")}`,
          () => `${inner("any")} | default(${of("any")}${dice.of(["", ", true", ", boolean=true"])})`,
          () => `${inner("list")}[${of("number")}]`,
          () => `${inner("text")}[${of("number")}]`,
          () => `(${of("any")}, ${of("any")})`,
          () => `${inner("list")} | ${dice.of(["first", "last", "min", "max", "list", "random"])}`,
          () => `range(${of("number")}${dice.of(["", `, ${this.#leaf("number")}`])})`,
          () => `${inner("any")} | ${this.#filterName(dice.of(["text", "list"]))}`,
          () => (this.#macros.length > 0 ? this.#call(dice.of(this.#macros)) : "missing.x"),
        ])();
    }
  }

  #operand(kind: Kind, depth: number): string {
    const source = this.#expression(kind, depth);
    return /^(?:[\w.]+|\[.*\]|\(.*\)|'[^']*')$/.test(source) || this.#dice.chance(12) ? source : `(${source})`;
  }

  #leaf(kind: Kind): string {
    const dice = this.#dice;
    if (kind === "number" && this.#numLoops > 0 && dice.chance(20)) return "loop.index0";
    if (dice.chance(60)) return dice.of(this.#names[kind]);
    switch (kind) {
      case "text":
        return this.#literal();
      case "number":
        return dice.of(["0", "1", "2", "-1", "3", "10", "0.5", "2.0", "1e2", "100", "7"]);
      case "flag":
        return dice.of(["true", "false", "True", "none", "not flag"]);
      case "list":
        return dice.of([
          "[]",
          "[1, 2, 3]",
          "['b', 'a', 'B']",
          "[[1, 'x'], [2, 'y']]",
          "(1, 2)",
          "['a',]",
          "'abc'",
          "[1, 1.0, true]",
          "range(3)",
        ]);
      case "dict":
        return dice.of(["{}", "{'a': 1, 'b': [2]}", "{'b': 1, 'A': 2, 'c': none}", "{1: 'x', true: 'y'}"]);
      case "any":
        return dice.of(["none", "missing", "''", "0", "[]", "{}", "true", "'x'", "missing.y", "1.0", "()"]);
    }
  }

  #literal(): string {
    const dice = this.#dice;
    const text = dice.of([...TEXTS.slice(0, 24), ...TEXTS]);
    const quote = dice.of(["'", '"']);
    const escaped = text.replaceAll("\\", "\\\\").replaceAll(quote, `\\${quote}`);
    return quote + (dice.chance(50) ? escaped.replaceAll("\n", "\\n") : escaped) + quote;
  }

  #textual(of: (kind: Kind) => string, inner: (kind: Kind) => string): string {
    const dice = this.#dice;
    return dice.of<() => string>([
      () => `${inner("text")} ~ ${inner("any")}${dice.of(["", ` ~ ${inner("text")}`, ` + ${inner("text")}`])}`,
      () => `${inner("text")} + ${inner("text")}`,
      () => `${inner("text")} | ${this.#filterName("text")}`,
      () => `${inner("text")} | ${this.#filterName("text")} | ${this.#filterName("text")}`,
      () =>
        `${inner("any")} | ${dice.of(["string", "tojson", "trim", "upper", "tojson(indent=2)", "tojson(ensure_ascii=true)"])}`,
      () =>
        `${inner("any")} | tojson(${dice.of(["sort_keys=true", "separators=(',', ':')", "indent=4, sort_keys=true", "indent='\\t'", "indent=0", "indent=none"])})`,
      () =>
        `${inner("text")}.${dice.of(["strip", "lstrip", "rstrip"])}(${dice.of(["", "", "'\\n'", "'a '", "'</>'", "none"])})`,
      () => `${inner("text")}.${dice.of(["upper", "lower", "title", "capitalize", "swapcase"])}()`,
      () => `${inner("text")}.replace(${of("text")}, ${of("text")}${dice.of(["", "", ", 1"])})`,
      () => `${inner("text")}.${dice.of(["split", "rsplit"])}(${of("text")})[${dice.of(["0", "-1", "1"])}]`,
      () => `${inner("text")}[${this.#slice()}]`,
      () => `${of("text")}.join(${of("list")})`,
      () => `${inner("list")} | join(${dice.of(["", "', '", "'\\n'", "', ', attribute='role'"])})`,
      () => `${inner("text")} * ${dice.of(["2", "0", "-1", "n"])}`,
      () => `'%s-%s' % (${of("any")}, ${of("any")})`,
      () => `'%s|%d' | format(${of("any")}, ${of("number")})`,
      () => `'{} {}'.format(${of("text")}, ${of("number")})`,
      () =>
        `${inner("text")}.${dice.of(["removeprefix", "removesuffix", "ljust", "zfill", "center"])}(${dice.of(["'a'", "5", of("text")])})`,
      () =>
        `strftime_now('${dice.of(["%Y-%m-%d", "%d %b %Y", "%A, %B %-d", "%H:%M:%S", "%y%j", "%e %I %p", "%F %T", "%U %W %V %G %u %w", "%c %x %X", "%D %R %h %%"])}')`,
      () => `'${"a"}' '${"b"}'`,
      () => `${inner("text")} if ${inner("flag")} else ${inner("text")}`,
    ])();
  }

  #slice(): string {
    const part = () => this.#dice.of(["", "", "0", "1", "2", "-1", "-2", "n"]);
    return `${part()}:${part()}${this.#dice.of(["", "", ":", ":-1", ":2", ":-2"])}`;
  }

  #flag(of: (kind: Kind) => string, inner: (kind: Kind) => string): string {
    const dice = this.#dice;
    const tests = [
      ...[
        "defined",
        "undefined",
        "none",
        "string",
        "mapping",
        "iterable",
        "sequence",
        "boolean",
        "true",
        "false",
        "number",
      ],
      ...[
        "integer",
        "float",
        "callable",
        "lower",
        "upper",
        "not defined",
        "not none",
        "not string",
        "sameas true",
        "escaped",
      ],
      ...[
        "in ['a', 1]",
        "in messages",
        "eq 1",
        "ne 'a'",
        "gt(1)",
        "divisibleby 2",
        "divisibleby(3)",
        "odd",
        "even",
        "filter",
        "test",
      ],
    ];
    return dice.of<() => string>([
      () => `${inner("any")} is ${dice.of(tests)}`,
      () => `${inner("any")} is ${dice.of(tests)}`,
      () => `${inner("any")} ${dice.of(["==", "!="])} ${inner("any")}`,
      () => `${inner("dict")}.role ${dice.of(["==", "!="])} '${dice.of(ROLES)}'`,
      () => `${inner("number")} ${dice.of(["<", "<=", ">", ">=", "==", "!="])} ${inner("number")}`,
      () => `${inner("text")} ${dice.of(["<", "<=", ">", ">=", "=="])} ${inner("text")}`,
      () => `${inner("number")} < ${inner("number")} ${dice.of(["<", "<=", "!="])} ${inner("number")}`,
      () => `${inner("text")} ${dice.of(["in", "not in"])} ${inner("text")}`,
      () => `${inner("any")} ${dice.of(["in", "not in"])} ${inner(dice.of(["list", "dict", "list"]))}`,
      () => `not ${inner("any")}`,
      () => `${inner("flag")} ${dice.of(["and", "or"])} ${inner("flag")}`,
      () => `${inner("text")}.${dice.of(["startswith", "endswith"])}(${dice.of([of("text"), "('a', 'H')"])})`,
      () => `${inner("text")}.${dice.of(["isdigit", "isalpha", "isspace", "isupper", "islower", "isalnum"])}()`,
      () => `${inner("list")} is ${dice.of(["defined and list", "iterable", "sequence", "string"])}`,
      () => (this.#numLoops > 0 ? `loop.${dice.of(["first", "last", "index0 == 0"])}` : "true"),
    ])();
  }

  #list(of: (kind: Kind) => string, inner: (kind: Kind) => string): string {
    const dice = this.#dice;
    return dice.of<() => string>([
      () => `[${dice.many(3, () => of("any")).join(", ")}]`,
      () => `${inner("list")}[${this.#slice()}]`,
      () => `${inner("list")} | ${this.#filterName("list")}`,
      () => `${inner("list")} | ${this.#filterName("list")} | list`,
      () =>
        `${inner("text")}.${dice.of(["split", "rsplit"])}(${dice.of(["", "", of("text"), "none, 1", `${of("text")}, 1`])})`,
      () => `${inner("text")}.splitlines(${dice.of(["", "true"])})`,
      () => `${inner("text")}.${dice.of(["partition", "rpartition"])}(${of("text")})`,
      () => `${inner("list")} + ${inner("list")}`,
      () => `${inner("dict")}.${dice.of(["items()", "keys()", "values()"])}${dice.of(["", " | list"])}`,
      () =>
        `${inner("dict")} | ${dice.of(["list", "dictsort", "dictsort(reverse=true)", "dictsort(by='value')", "dictsort(true)", "items | list"])}`,
      () =>
        `messages | selectattr(${dice.of(["'role', 'equalto', 'user'", "'role', 'in', ['user', 'tool']", "'content'", "'name', 'defined'", "'role', 'ne', 'system'"])}) | list`,
      () => `messages | rejectattr(${dice.of(["'role', 'equalto', 'system'", "'content', 'none'", "'name'"])}) | list`,
      () =>
        `messages | map(attribute=${dice.of(["'role'", "'content'", "'name', default='?'", "'tool_calls.0.function.name'"])}) | list`,
      () =>
        `words | map('${dice.of(["upper", "trim", "length", "title", "capitalize", "tojson"])}') | ${dice.of(["list", "join('|')", "sort", "unique | list"])}`,
      () =>
        `${inner("list")} | ${dice.of(["select", "reject"])}('${dice.of(["string", "none", "defined", "mapping", "number"])}') | list`,
      () => `${inner("list")} | ${dice.of(["select", "reject"])} | list`,
      () => `range(${dice.of(["3", "0", "1, 4", "5, 0, -2", "n"])})${dice.of(["", " | list"])}`,
      () => `messages | groupby('role')`,
      () => `${inner("list")} * ${dice.of(["2", "0"])}`,
    ])();
  }

  #filterName(kind: "text" | "list"): string {
    const text = [
      ...[
        "trim",
        "trim",
        "upper",
        "lower",
        "title",
        "capitalize",
        "length",
        "string",
        "list",
        "reverse",
        "indent",
        "first",
        "last",
      ],
      ...[
        "replace('a', 'b')",
        "replace('l', '', 1)",
        "trim('a')",
        "indent(2)",
        "indent(2, true)",
        "indent(first=true, blank=true)",
      ],
      ...[
        "tojson",
        "default('d')",
        "truncate(5)",
        "truncate(6, true, '')",
        "wordcount",
        "center(10)",
        "int",
        "float",
        "indent('> ')",
        "safe",
      ],
      "nonsense",
    ];
    const list = [
      ...[
        "list",
        "first",
        "last",
        "length",
        "reverse",
        "reverse | list",
        "sort",
        "sort(reverse=true)",
        "unique",
        "unique | list",
        "join",
      ],
      ...[
        "join(', ')",
        "map('string')",
        "select",
        "reject('none')",
        "tojson",
        "string",
        "sort(attribute='role')",
        "min",
        "max",
        "sum",
      ],
      ...["sort(case_sensitive=true)", "map('upper') | list", "default([])", "batch(2) | list", "join('-') | upper"],
    ];
    return this.#dice.of(kind === "text" ? text : list);
  }
}
