/**
 * The native runner binds `past_<state>` and `present_<state>` to one buffer. That is sound only if
 * whatever reads the past has run before the present is written, in every order that respects the
 * graph's edges; so the compiler proves it of each graph it writes.
 */
import assert from "node:assert/strict";
import type { Graph, Node, Value } from "../onnx/graph.ts";

/** Their result may be their input's own memory under another shape. */
const ALIASING = new Set(["Identity", "Reshape", "Squeeze", "Unsqueeze"]);

/**
 * Asserts for each state that every node which reads the past, or an alias of it, is the writer of
 * the present or an ancestor of it. The writer itself must read before it writes: true of
 * elementwise operators, and of `Scan`, which reads its initial state in the first iteration and
 * writes the final one in the last.
 */
export function assertInPlaceSafe(graph: Graph): void {
  const readers = new Map<Value, Node[]>();
  const producers = new Map<Value, Node>();
  for (const node of graph.nodes) {
    for (const input of valuesRead(node)) readers.set(input, [...(readers.get(input) ?? []), node]);
    for (const output of node.outputs) producers.set(output, node);
  }
  for (const { value: past } of graph.inputs.filter(({ value }) => value.name.startsWith("past_"))) {
    const name = past.name.replace("past_", "present_");
    const present = graph.outputs.find(({ value }) => value.name === name);
    assert(present, `${past.name} has no ${name}`);
    const writer = producers.get(present.value)!;
    const before = ancestors(writer, producers);
    for (const reader of readersThroughAliases(past, readers)) {
      assert(
        reader === writer || before.has(reader),
        `${reader.name} reads ${past.name} but need not run before ${writer.name} writes ${name}`,
      );
    }
    assert(!ALIASING.has(writer.opType), `${name} is an alias, made by ${writer.name}`);
  }
}

function readersThroughAliases(value: Value, readers: ReadonlyMap<Value, readonly Node[]>): Node[] {
  return (readers.get(value) ?? []).flatMap((node) =>
    ALIASING.has(node.opType)
      ? [node, ...node.outputs.flatMap((output) => readersThroughAliases(output, readers))]
      : [node],
  );
}

function ancestors(node: Node, producers: ReadonlyMap<Value, Node>): Set<Node> {
  const found = new Set<Node>();
  const open = [node];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    for (const input of valuesRead(next)) {
      const producer = producers.get(input);
      if (producer === undefined || found.has(producer)) continue;
      found.add(producer);
      open.push(producer);
    }
  }
  return found;
}

/** A node's inputs, and what its bodies read of the graph around them. */
export function valuesRead(node: Node): Value[] {
  const bodies = [...node.attributes.values()].flatMap(({ type, value }) => (type === "graph" ? value.nodes : []));
  return [...node.inputs.filter((input) => input !== undefined), ...bodies.flatMap(valuesRead)];
}
