/** What the documents say of the options, the routes and the files is what the sources say. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { createProgram } from "../../src/cli/program.ts";
import { configOptions } from "../../src/config/schema.ts";

const read = (file: string) => readFileSync(file, "utf8");
const DOCUMENTS = [
  "README.md",
  "ARCHITECTURE.md",
  "CONTRIBUTING.md",
  "SECURITY.md",
  ...readdirSync("docs")
    .filter((name) => name.endsWith(".md"))
    .map((name) => `docs/${name}`),
  "models/densemamba-tales-4m/README.md",
];

/** Rows of Markdown tables whose first cell matches, cells trimmed. */
function rows(text: string, first: RegExp): string[][] {
  return text
    .split("\n")
    .filter((line) => line.startsWith("|"))
    .map((line) => line.split(/(?<!\\)\|/).slice(1, -1))
    .map((cells) => cells.map((cell) => cell.trim().replaceAll("\\|", "|")))
    .filter((cells) => first.test(cells[0]!));
}

const flagCell = ({ flag, argument }: { flag: string; argument: string }) => `\`${`${flag} ${argument}`.trim()}\``;

describe("README.md", () => {
  const readme = read("README.md");

  it("fits three screens", () => {
    expect(readme.split("\n").length).toBeLessThanOrEqual(151);
  });

  it("leads to every page of docs", () => {
    const pages = DOCUMENTS.filter((file) => file.startsWith("docs/"));
    expect(pages.filter((file) => !readme.includes(`](${file})`))).toEqual([]);
  });

  it("gives commands that package.json and the program have", () => {
    const { scripts } = JSON.parse(read("package.json"));
    for (const [, name] of readme.matchAll(/npm run (\w+)/g)) expect(Object.keys(scripts)).toContain(name);
    expect(readme).toContain("npm ci && npx densemamba serve");
    expect(readme).toContain("npm ci && npm test");
  });
});

describe("docs/api.md", () => {
  it("lists every endpoint that openapi.yaml describes, and no other", () => {
    const { paths } = parse(read("openapi.yaml"));
    // The pages' own scripts and styles are nobody's business.
    const described = Object.keys(paths).filter((route) => !/^\/(?:docs|assets)\//.test(route));
    const listed = rows(read("docs/api.md"), /^`(?:GET|POST|DELETE|WS)\b/).map(
      ([cell]) => /(\/[^\s`]*)/.exec(cell!)![1]!,
    );
    expect([...new Set(listed)].toSorted()).toEqual(described.toSorted());
  });
});

describe("docs/commands.md", () => {
  it("lists every command, and no other", () => {
    const program = createProgram({ version: "1", terminal: process, signals: process });
    const listed = [...read("docs/commands.md").matchAll(/^npx densemamba ([\w-]+)/gm)].map(([, name]) => name);
    expect(listed).toEqual(program.commands.map((command) => command.name()));
  });
});

describe("docs/configuration.md", () => {
  it("lists every option's key, flag and variable", () => {
    const expected = configOptions.map((option) => [
      `\`${option.key}\``,
      flagCell(option),
      `\`${option.variable}\``,
      option.shownDefault,
      option.description,
    ]);
    expect(rows(read("docs/configuration.md"), /^`[a-z]/)).toEqual(expected);
  });
});

describe("ARCHITECTURE.md", () => {
  it("names only files and folders that there are", () => {
    const named = [...read("ARCHITECTURE.md").matchAll(/`((?:src|bench|test|docs|docker|models)\/[\w./-]*)`/g)];
    expect(named.length).toBeGreaterThan(20);
    expect(named.map(([, file]) => file!).filter((file) => !existsSync(file))).toEqual([]);
  });

  it("has a word on every folder of src", () => {
    const text = read("ARCHITECTURE.md");
    const sources = ["model", "onnx", "compiler", "runtime", "engine", "sampling", "tokenizer", "session"];
    for (const name of [...sources, "generation", "server", "metrics", "config", "cli", "bench", "hub"]) {
      expect(text).toContain(`src/${name}`);
    }
  });
});

describe.each(DOCUMENTS)("%s", (file) => {
  it("links only to files that there are", () => {
    const links = [...read(file).matchAll(/\]\(([^)\s]+)\)/g)].map(([, link]) => link!);
    const local = links.filter((link) => !/^(?:https?:|#)/.test(link)).map((link) => link.replace(/#.*/, ""));
    expect(local.filter((link) => !existsSync(path.join(path.dirname(file), link)))).toEqual([]);
  });
});
