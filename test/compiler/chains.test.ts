import { rmSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { chainOperators } from "../../src/compiler/chains.ts";
import { lower } from "../../src/compiler/lower.ts";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { float, Graph, type Node, type Value } from "../../src/onnx/graph.ts";
import { randomCheckpoint, TINY_RETNET, TINY_SHAPE } from "../helpers/checkpoints.ts";

/**
 * What `node` computes, as words: each result is the operator's name and its operands' meanings.
 */
function run(node: Node, meanings: Map<Value, string>, shared: ReadonlySet<Value>): void {
  const read = (value: Value | undefined) => (value === undefined ? "-" : meanings.get(value)!);
  if (node.opType !== "Chain") {
    const views = node.attributes.get("views")?.value as string | undefined;
    const columns = new Map(views?.split(" ").map((view) => view.split(/(?=\[)/) as [string, string]));
    const named = [...node.attributes].filter(([name]) => name !== "views");
    const attributes = named.map(([name, { value }]) => `${name}=${String(value)}`);
    const inputs = node.inputs.map((value, i) => read(value) + (columns.get(String(i)) ?? ""));
    for (const [i, output] of node.outputs.entries()) {
      meanings.set(output, `${node.opType}.${i}(${[...inputs, ...attributes].join(" ")})`);
    }
    return;
  }
  const memory = new Map(node.inputs.map((value, i) => [`${shared.has(value!) ? "i" : "x"}${i}`, read(value)]));
  for (const line of (node.attributes.get("program")!.value as string).split("\n")) {
    const words = line.split(" ");
    const arrow = words.indexOf(">");
    const attributes = words.filter((word) => word.includes("="));
    const operands = words.slice(1, arrow).map((word) => word.split(/(?=\[)/) as [string, string?]);
    const inputs = operands.map(([word]) => word);
    const outputs = words.slice(arrow + 1).filter((word) => !word.includes("="));
    expect(outputs.some((word) => inputs.includes(word))).toBe(false); // they may be written before all is read
    expect(new Set(outputs).size).toBe(outputs.length);
    for (const word of inputs) expect(word === "-" || memory.has(word), `${word} of ${line}`).toBe(true);
    const given = operands.map(([word, columns = ""]) => (word === "-" ? "-" : memory.get(word)! + columns));
    for (const [i, word] of outputs.entries()) {
      memory.set(word, `${words[0]}.${i}(${[...given, ...attributes].join(" ")})`);
    }
  }
  for (const [i, value] of node.outputs.entries()) meanings.set(value, memory.get(`o${i}`)!);
}

/**
 * The meaning of each of the graph's outputs; fails if a node comes before what it reads. An input
 * of a chain with a row for each sequence is an `x`, others are an `i`: weights, and without such
 * rows everything.
 */
function meaningsOf(graph: Graph, hasRowPerSequence: boolean): Record<string, string> {
  const given = [...graph.inputs.map(({ value }) => value), ...graph.initializers.map(({ value }) => value)];
  const values = graph.nodes.flatMap(({ outputs }) => outputs);
  const weights = graph.initializers.map(({ value }) => value);
  const shared = new Set(hasRowPerSequence ? weights : [...given, ...values]);
  const meanings = new Map(given.map((value) => [value, value.name]));
  for (const node of graph.nodes) {
    for (const input of node.inputs) if (input !== undefined) expect(meanings.has(input)).toBe(true);
    run(node, meanings, shared);
  }
  return Object.fromEntries(graph.outputs.map(({ value }) => [value.name, meanings.get(value)!]));
}

describe("chains", () => {
  it("compute what their operators did, in any graph", () => {
    const nodes = fc.array(
      fc.record({
        own: fc.boolean(),
        inputs: fc.array(fc.option(fc.nat(40), { nil: undefined }), { minLength: 1, maxLength: 4 }),
        numOutputs: fc.integer({ min: 1, max: 3 }),
        isOutput: fc.boolean(),
        rows: fc.integer({ min: 1, max: 3 }),
        isView: fc.boolean(),
      }),
      { minLength: 1, maxLength: 25 },
    );
    fc.assert(
      fc.property(nodes, fc.boolean(), (records, hasRowPerSequence) => {
        const graph = new Graph("any");
        const values = [graph.input("x", "f32", [1]), graph.input("y", "f32", [1])];
        for (const [n, { own, inputs, numOutputs, isOutput, rows, isView }] of records.entries()) {
          const operands = inputs.map((at) => (at === undefined ? undefined : values[at % values.length]));
          const view = own && isView && operands[0] !== undefined ? { views: `0[${rows}:${rows + 2}]` } : {};
          const attributes = { rows, epsilon: float(1e-5), ...view };
          const outputs = graph.ops(own ? "densemamba.Own" : "Other", operands, numOutputs, attributes);
          values.push(...outputs);
          if (isOutput) graph.output(`out${n}`, outputs[0]!, "f32", [1]);
        }
        const before = meaningsOf(graph, hasRowPerSequence);
        chainOperators(graph, { hasRowPerSequence });
        expect(meaningsOf(graph, hasRowPerSequence)).toEqual(before);
        const isOwn = graph.nodes.map(({ domain }) => domain === "densemamba");
        expect(isOwn.some((own, i) => own && isOwn[i + 1])).toBe(false); // neighbours are one
      }),
      { numRuns: 300 },
    );
  });

  it.each([
    ["DenseMamba", TINY_SHAPE, 2],
    ["DenseRetNet", TINY_RETNET, undefined],
  ])("join the operators of a %s", async (_, shape, numChains) => {
    const modelDir = await randomCheckpoint(shape);
    const checkpoint = openCheckpoint(modelDir);
    for (const steps of ["one", "many"] as const) {
      const graph = lower(checkpoint, { precision: "int8", lowering: "kernels" }, steps);
      const hasRowPerSequence = steps === "one";
      const before = meaningsOf(graph, hasRowPerSequence);
      chainOperators(graph, { hasRowPerSequence });
      expect(meaningsOf(graph, hasRowPerSequence)).toEqual(before);
      const chains = graph.nodes.filter(({ opType }) => opType === "Chain");
      if (numChains === undefined) expect(chains.length).toBeGreaterThan(0);
      else expect(chains).toHaveLength(numChains);
    }
    checkpoint.close();
    rmSync(modelDir, { recursive: true });
  });

  it("refuse an operator that a program has no word for", () => {
    const graph = new Graph("text");
    const x = graph.op("densemamba.Own", [graph.input("x", "f32", [1])], { mode: "fast" });
    graph.output("y", graph.op("densemamba.Own", [x]), "f32", [1]);
    expect(() => chainOperators(graph, { hasRowPerSequence: true })).toThrow(
      "a chain's operator cannot have the attribute mode",
    );
  });
});
