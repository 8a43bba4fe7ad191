/**
 * Joins our own operators into chains: ONNX Runtime's threads come together once for each chain
 * instead of once for each operator (docs/kernels.md). What a chain computes, to the last bit, is
 * what its operators do.
 */
import assert from "node:assert/strict";
import type { Attribute, Graph, Node, Value } from "../onnx/graph.ts";
import { valuesRead } from "./in-place.ts";

const DOMAIN = "densemamba";

/**
 * Replaces the graph's nodes by as few chains as their order allows, and the others. Sound for
 * states that are updated in place: `assertInPlaceSafe` holds of every order that respects the
 * graph's edges.
 *
 * `hasRowPerSequence`: whatever is not a weight has a row for each sequence, and so a thread may
 * take some of them through a chain by itself. Not where sequences stand one after another in one
 * row.
 */
export function chainOperators(graph: Graph, { hasRowPerSequence }: { readonly hasRowPerSequence: boolean }): void {
  const producers = new Map(graph.nodes.flatMap((node) => node.outputs.map((output) => [output, node] as const)));
  const open = new Set(graph.nodes);
  const isReady = (node: Node) => !valuesRead(node).some((value) => open.has(producers.get(value)!));
  /**
   * Takes those that only need what is taken, in the graph's order, which is one of producers
   * before readers.
   */
  const take = (isWanted: (node: Node) => boolean) =>
    [...open].filter((node) => isWanted(node) && isReady(node) && open.delete(node));

  const weights = new Set(graph.initializers.map(({ value }) => value));
  const isByRow = (value: Value) => hasRowPerSequence && !weights.has(value);
  const nodes: Node[] = [];
  for (let numChains = 0; open.size > 0; ) {
    const others = take((node) => node.domain !== DOMAIN);
    const own = take((node) => node.domain === DOMAIN);
    assert(others.length + own.length > 0, "the graph has a cycle");
    const rest = [...open].flatMap(valuesRead);
    nodes.push(
      ...others,
      ...(own.length > 1 ? [chain(graph, own, { read: new Set(rest), isByRow, name: `Chain.${numChains++}` })] : own),
    );
  }
  graph.nodes.splice(0, graph.nodes.length, ...nodes);
}

interface Surroundings {
  /** What nodes after the chain read. */
  readonly read: ReadonlySet<Value>;
  /** Whether it has a row for each sequence. */
  readonly isByRow: (value: Value) => boolean;
  readonly name: string;
}

/** One node for `links`, in their order. */
function chain(graph: Graph, links: readonly Node[], { read, isByRow, name }: Surroundings): Node {
  const outer = new Set(graph.outputs.map(({ value }) => value));
  const inputs: Value[] = [];
  const outputs: Value[] = [];
  const operands = new Map<Value, string>();
  const add = (values: Value[], letter: string, value: Value) => {
    operands.set(value, `${letter}${values.push(value) - 1}`);
  };
  const registers = new Registers(links);

  const lines = links.map((link, index) => {
    for (const value of link.inputs) {
      if (value && !operands.has(value)) add(inputs, isByRow(value) ? "x" : "i", value);
    }
    link.outputs.forEach((value, i) => {
      if (outer.has(value) || read.has(value)) add(outputs, "o", value);
      else operands.set(value, registers.take(value, i === 0 ? "" : `${link.opType} ${i}`));
    });
    registers.release(index);
    const columns = columnsOf(link);
    const operand = (value: Value | undefined) => (value === undefined ? "-" : operands.get(value)!);
    const inputWords = link.inputs.map((value, i) => operand(value) + (columns.get(i) ?? ""));
    const attributes = [...link.attributes].filter(([name]) => name !== "views");
    const words = [link.opType, ...inputWords, ">", ...link.outputs.map(operand)];
    return [...words, ...attributes.map(attributeWord)].join(" ");
  });
  // ONNX Runtime cannot tell the types of results that may be of any; ours between operators are
  // all of one.
  for (const value of outputs) if (!outer.has(value)) graph.declare(value, "f32");
  const program: Attribute = { type: "string", value: lines.join("\n") };
  return { opType: "Chain", domain: DOMAIN, name, inputs, outputs, attributes: new Map([["program", program]]) };
}

/** Of each input that is columns of a wider value: `[first:end]`. See `kernelNode`. */
function columnsOf({ attributes }: Node): Map<number, string> {
  const columns = attributes.get("views");
  const words = columns?.type === "string" ? columns.value.split(" ") : [];
  return new Map(words.map((word) => [Number.parseInt(word, 10), word.slice(word.indexOf("["))]));
}

function attributeWord([name, attribute]: readonly [string, Attribute]): string {
  assert(
    attribute.type === "int" || attribute.type === "float",
    `a chain's operator cannot have the attribute ${name}`,
  );
  return `${name}=${attribute.value}`;
}

/**
 * Memory for values between a chain's operators. Values share a register only with those of their
 * kind, whose size is the same: a register is as large as the largest of them.
 */
class Registers {
  readonly #lastReads: Map<Value, number>;
  readonly #live: { readonly value: Value; readonly kind: string; readonly name: string }[] = [];
  readonly #free = new Map<string, string[]>();
  #count = 0;

  constructor(links: readonly Node[]) {
    this.#lastReads = new Map(
      links.flatMap((link, index) => [...link.inputs, ...link.outputs].map((v) => [v!, index])),
    );
  }

  take(value: Value, kind: string): string {
    const name = this.#free.get(kind)?.pop() ?? `r${this.#count++}`;
    this.#live.push({ value, kind, name });
    return name;
  }

  /** Those that nothing after link `index` reads. */
  release(index: number): void {
    for (const register of this.#live.splice(0)) {
      if (this.#lastReads.get(register.value)! > index) this.#live.push(register);
      else this.#free.set(register.kind, [...(this.#free.get(register.kind) ?? []), register.name]);
    }
  }
}
