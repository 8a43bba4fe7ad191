/**
 * What chat templates of public models rely on, one by one; the values are transformers' (5.24.0).
 */
import { expect, test } from "vitest";
import { Template } from "../../../src/tokenizer/jinja/template.ts";

type Variables = Readonly<Record<string, unknown>>;

const say = (role: string, content: string) => ({ role, content });
const HI = [say("user", "Hi")];

function render(template: string, variables: Variables = {}): string {
  const given = { messages: HI, tools: null, documents: null, bos_token: "<s>", ...variables };
  const limits = { refill: () => 100_000, maxLength: 1_000_000, nowMs: Date.UTC(2026, 0, 4, 12, 5, 9) };
  return Template.parse(template).render(given, limits);
}

const content = (text: string) => ({ messages: [say("user", text)] });

const CASES: readonly (readonly [what: string, template: string, right: string, variables?: Variables])[] = [
  [
    "each round of a loop starts anew",
    "{% for a in [1,2] %}{% for b in [1,2] %}{% if b == 1 %}{% set z = a %}{% endif %}{{ z }}{% endfor %};{% endfor %}",
    "1;2;",
  ],
  [
    "variables set in a loop are not set after it",
    "{% set x = 1 %}{% for a in [2] %}{% set x = a %}{{ x }}{% endfor %}{{ x }}",
    "21",
  ],
  ["break keeps the output", "{% for a in 'abc' %}{{ a }}{% if a == 'b' %}{% break %}{% endif %};{% endfor %}", "a;b"],
  ["continue too", "{% for a in 'abc' %}{{ a }}{% if a == 'b' %}{% continue %}{% endif %};{% endfor %}", "a;bc;"],
  [
    "strip removes only the given characters",
    "[{{ messages[0].content.lstrip('\\n') }}]",
    "[    if a:]",
    content("\n\n    if a:"),
  ],
  ["strip takes single characters", "{{ 'a</a>'.rstrip('</a>') }}|{{ 'xxhixx' | trim('x') }}", "|hi"],
  ["capitalize and title", "{{ 'hELLO' | capitalize }}{{ \"it's\" | title }}{{ \"it's\".title() }}", "HelloIt'sIt'S"],
  ["characters, not units", "{{ c | length }}{{ c[1:] }}{{ c[0] }}{{ c[::-1] }}", "3ab🌶ba🌶", { c: "🌶ab" }],
  ["lines end as they like", "a\r\n{% if true %}\r\nb{% endif %}\rc{{ 'x\r\ny' }}\r\n", "a\nbcx\ny"],
  [
    "equality is Python's",
    "{{ '' != false }}{{ '1' == 1 }}{{ [1] == [1.0] }}{{ none == missing }}{{ 1 == true }}{{ {'a': [1]} == {'a': [1]} }}",
    "TrueFalseTrueFalseTrueTrue",
  ],
  [
    "values are printed as in Python",
    "{{ x }}{{ [true, none, 1.0, 'a\"b', \"it's\"] }}{{ messages[0] }}{{ (1,) }}{{ 1e20 }}{{ 1e-5 }}",
    "None[True, None, 1.0, 'a\"b', \"it's\"]{'role': 'user', 'content': 'Hi'}(1,)1e+201e-05",
    { x: null },
  ],
  [
    "groups have names",
    "{% for g in [{'a': 1}, {'a': 2}, {'a': 1}] | groupby('a') %}{{ g.grouper }}{{ g.list }}{{ g[0] }};{% endfor %}",
    "1[{'a': 1}, {'a': 1}]1;2[{'a': 2}]2;",
  ],
  ["strftime_now", "{{ strftime_now('%A %a %y %j %-d %e %F %B') }}", "Sunday Sun 26 004 4  4 2026-01-04 January"],
  [
    "tools and documents are none",
    "{{ 'plain' if tools is none and documents is none }}{% for x in nothing %}x{% endfor %}",
    "plain",
  ],
  [
    "undefined is empty, and goes no further",
    "{{ nothing }}{{ nothing ~ 'x' }}{{ nothing | length }}{{ nothing is iterable }}{{ 'a' in nothing }}",
    "x0TrueFalse",
  ],
  ["~ binds before +", "{{ '1' + 2 ~ 3 }}", "123"],
  ["relations in a chain", "{{ 1 < 2 < 3 }}{{ 3 > 2 > 2 }}", "TrueFalse"],
  [
    "tests with arguments",
    "{{ 4 is divisibleby 2 }}{{ 4 is divisibleby(3) }}{{ 1 is in [1] }}{{ 1 is not eq 2 }}",
    "TrueFalseTrueTrue",
  ],
  ["raw, and comments", "{% raw %}{{ x }}{% endraw %}{# {{ y }} #}|", "{{ x }}|"],
  ["white space around tags", "  {% if true %}\n a {%- if true +%}\n b\n  {%+ endif %}\n{% endif %}", " a\n b\n  "],
  ["generation is shown as it is", "{% generation %}\n{{ 'a' }}\n{% endgeneration %}\nb", "a\nb"],
  ["a map is gone through once", "{% set m = ['a'] | map('upper') %}{{ m | list }}{{ m | list }}", "['A'][]"],
  [
    "a dict's methods hide its keys as attributes",
    "{{ {'items': 1}['items'] }}{{ {'items': 1}.items is callable }}",
    "1True",
  ],
  [
    "tojson",
    "{{ {'b': 'é<', 'a': [1, 2.0, none]} | tojson }}{{ [1, {}] | tojson(indent=2) }}{{ {'b': 1, 'a': 'é'} | tojson(ensure_ascii=true, sort_keys=true, separators=(',', ':')) }}",
    '{"b": "é<", "a": [1, 2.0, null]}[\n  1,\n  {}\n]{"a":"\\u00e9","b":1}',
  ],
  [
    "macros",
    "{% macro f(a, b=a ~ '!') %}{{ a }}{{ b }}{{ kwargs }}{{ caller() if caller }}{% endmacro %}{{ f(1, c=2) }}{% call f('x') %}y{% endcall %}",
    "11!{'c': 2}xx!{}y",
  ],
  [
    "namespaces",
    "{% set ns = namespace({'a': 1}, b=2) %}{% for i in [3] %}{% set ns.a = i %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c is defined }}",
    "32False",
  ],
  [
    "loop",
    "{% for x in 'ab' %}{{ loop.index }}{{ loop.revindex0 }}{{ loop.last }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('o', 'e') }};{% endfor %}",
    "11Falsebo;20Trueae;",
  ],
  [
    "a loop in itself",
    "{% for x in [[1, [2]], 3] recursive %}{{ loop.depth }}{% if x is iterable %}{{ loop(x) }}{% endif %}{% endfor %}",
    "12231",
  ],
];

const NAMED = CASES.map(([what, template, right, variables = {}]) => ({ what, template, right, variables }));

test.each(NAMED)("$what", ({ template, right, variables }) => {
  expect(render(template, variables)).toBe(right);
});

test.each([
  ["{{ 1 }}\n{{ 'a' + 1 }}", "line 2: unsupported operand"],
  ["a\n\n{% if x %}\n{{ x.y.z }}{% endif %}", "line 4: 'str' object has no attribute 'y'"],
  ["\n{% for %}", "line 2: expected an expression"],
  ["\n\n{{ x | nonsense }}", "line 3: No filter named 'nonsense'."],
  ["{{ x | urlize }}", "line 1: the filter 'urlize' is not supported here"],
  ["\n{% include 'a' %}", "line 2: {% include %} is not supported here"],
  ["\n{{ 2 ** 60 }}", "line 2: the integer 1152921504606847000 is not supported here"],
  ["\n{{ strftime_now('%E') }}", "line 2: strftime's %E is not supported here"],
  ["\n{{ raise_exception('roles must alternate') }}", "line 2: roles must alternate"],
  ["\n{{ messages.append(1) }}", "line 2: 'list' object has no attribute 'append'"],
  ["\n{% macro f() %}\n\n{{ 1 / 0 }}{% endmacro %}\n{{ f() }}", "line 4: division by zero"],
])("errors name the line: %j", (template, message) => {
  expect(() => render(template, { x: "text" })).toThrow(message);
});
