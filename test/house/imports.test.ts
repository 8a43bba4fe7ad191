import { describe, expect, it } from "vitest";
import { findBreaches, findCircles, readSources } from "./import-rules.ts";

const breach = (file: string, text: string) => findBreaches([{ file, text }]);

describe("the import rule", () => {
  it("lets no file import itself through others", () => {
    expect(findCircles(readSources())).toEqual([]);
  });

  it("is followed by every file of src", () => {
    const sources = readSources();
    expect(sources.length).toBeGreaterThan(50);
    expect(findBreaches(sources)).toEqual([]);
  });
});

describe("the search for circles", () => {
  const circlesOf = (imports: Readonly<Record<string, string>>) =>
    findCircles(Object.entries(imports).map(([file, text]) => ({ file: `src/${file}.ts`, text })));

  it("finds two files that import each other, types included", () => {
    expect(circlesOf({ a: 'import type { B } from "./b.ts";', b: 'export { a } from "./a.ts";' })).toEqual([
      ["src/a.ts", "src/b.ts"],
    ]);
  });

  it("finds a long one behind files that are in none", () => {
    const circle = { b: 'import "./x/c.ts";', "x/c": 'import("../d.ts");', d: 'import "./b.ts"; import "./e.ts";' };
    expect(circlesOf({ a: 'import "./b.ts";', ...circle, e: "" })).toEqual([["src/b.ts", "src/d.ts", "src/x/c.ts"]]);
  });

  it("finds none where two ways lead to one file", () => {
    expect(circlesOf({ a: 'import "./b.ts"; import "./c.ts";', b: 'import "./c.ts";', c: "" })).toEqual([]);
  });
});

describe("the search for breaches", () => {
  it.each([
    ["an import upward", "src/engine/slots.ts", 'import { x } from "../server/app.ts";'],
    ["one of a type only", "src/model/state.ts", 'import type { Graph } from "../onnx/graph.ts";'],
    ["one over several lines", "src/sampling/a.ts", 'import {\n  a,\n  b,\n} from "../engine/engine.ts";'],
    ["one that is exported on", "src/sessions/a.ts", 'export { x } from "../engine/engine.ts";'],
    ["one at run time", "src/generation/a.ts", 'const x = await import("../runtime/open.ts");'],
    ["one in a type", "src/generation/a.ts", 'type X = typeof import("../runtime/open.ts");'],
    ["another folder's package", "src/server/a.ts", 'import * as ort from "onnxruntime-node";'],
    ["its subpath", "src/engine/a.ts", 'import { serve } from "@hono/node-server/serve-static";'],
    ["one that is required", "src/engine/a.ts", 'const k = createRequire(import.meta.url)("koffi");'],
    ["the environment", "src/engine/a.ts", "const debug = process.env.DEBUG;"],
    ["the environment by another way", "src/engine/a.ts", 'import { env } from "node:process";'],
    ["a missing extension", "src/engine/a.ts", 'import { x } from "./slots";'],
    ["what is not shipped", "src/cli/a.ts", 'import { x } from "../../bench/page.ts";'],
    ["a folder without a row", "src/utils/a.ts", ""],
  ])("finds %s", (_, file, text) => {
    expect(breach(file, text)).toHaveLength(1);
  });

  it.each([
    ["an import downward", "src/engine/a.ts", 'import type { R } from "../runtime/runner.ts";'],
    ["the errors", "src/onnx/a.ts", 'import { DenseMambaError } from "../errors.ts";'],
    ["an own package", "src/runtime/native/a.ts", 'import koffi from "koffi";'],
    ["a package that nobody owns", "src/model/a.ts", 'import { z } from "zod";'],
    ["a comment", "src/engine/a.ts", "// process.env would be wrong\n/* import '../server/app.ts' */"],
    ["the environment in its place", "src/config/process.ts", "const env = process.env;"],
  ])("lets %s pass", (_, file, text) => {
    expect(breach(file, text)).toEqual([]);
  });
});
