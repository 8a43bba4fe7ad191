/**
 * A typed builder of ONNX graphs that reads like the mathematics: `const y = g.op("Mul", [a, b])`.
 * It only records; `encode.ts` writes the file. Knows no model and no operator's meaning.
 */
import assert from "node:assert/strict";
import { type DataType, type Tensor, tensorByteLength } from "./tensor.ts";

/** An edge of the graph. Its name is final only when the graph is encoded: `output` renames. */
export class Value {
  name: string;
  constructor(name: string) {
    this.name = name;
  }
}

export type Attribute =
  | { readonly type: "int"; readonly value: number }
  | { readonly type: "ints"; readonly value: readonly number[] }
  | { readonly type: "float"; readonly value: number }
  | { readonly type: "string"; readonly value: string }
  | { readonly type: "tensor"; readonly value: Tensor }
  | { readonly type: "graph"; readonly value: Graph };

/**
 * Whole numbers and strings stand for themselves; a float must say so, since 1 and 1.0 are
 * different attributes.
 */
export type AttributeValue = number | string | readonly number[] | Attribute | Graph;

export function float(value: number): Attribute {
  return { type: "float", value };
}

export function tensor(value: Tensor): Attribute {
  return { type: "tensor", value };
}

export interface Node {
  readonly opType: string;
  /** `""` is ONNX's own domain. */
  readonly domain: string;
  readonly name: string;
  /** `undefined` leaves an optional input out. */
  readonly inputs: readonly (Value | undefined)[];
  readonly outputs: readonly Value[];
  readonly attributes: ReadonlyMap<string, Attribute>;
}

/** A number, or the name of a dimension known only at run time. */
export type Dimension = number | string;

export interface Port {
  readonly value: Value;
  readonly dtype: DataType;
  readonly shape: readonly Dimension[];
}

export interface Initializer {
  readonly value: Value;
  readonly tensor: Tensor;
}

/**
 * Tensors up to this size stay inside the ONNX file, where the optimiser can fold them; larger ones
 * go beside it.
 */
export const MAX_INLINE_BYTES = 1024;

export class Graph {
  readonly name: string;
  readonly inputs: Port[] = [];
  readonly outputs: Port[] = [];
  readonly nodes: Node[] = [];
  readonly initializers: Initializer[] = [];
  /** Of values between nodes, where a reader of the file could not infer them. */
  readonly declared: { readonly value: Value; readonly dtype: DataType }[] = [];
  readonly #names: NameCounter;
  readonly #weights = new Map<string, Value>();
  readonly #constants = new Map<string, Value>();
  #scope = "";

  constructor(name: string, names: NameCounter = new NameCounter()) {
    this.name = name;
    this.#names = names;
  }

  /** A body for `Scan`, `Loop` or `If`: it may use this graph's values by reference. */
  subgraph(name: string): Graph {
    const body = new Graph(name, this.#names);
    body.#scope = this.#scope;
    return body;
  }

  /**
   * Runs `build` with `name` prefixed to the names of nodes and values, so that profiles can be
   * read.
   */
  scoped<T>(name: string, build: () => T): T {
    const outer = this.#scope;
    this.#scope = `${outer}${name}/`;
    try {
      return build();
    } finally {
      this.#scope = outer;
    }
  }

  input(name: string, dtype: DataType, shape: readonly Dimension[]): Value {
    const value = new Value(name);
    this.inputs.push({ value, dtype, shape });
    return value;
  }

  /**
   * Makes `value`, which must be a node's result and not yet an output, the graph's output `name`.
   */
  output(name: string, value: Value, dtype: DataType, shape: readonly Dimension[]): void {
    assert(
      this.nodes.some((node) => node.outputs.includes(value)),
      `${name} is not computed here`,
    );
    assert(!this.outputs.some((port) => port.value === value), `${value.name} is an output already`);
    value.name = name;
    this.outputs.push({ value, dtype, shape });
  }

  /** States the type of a value between nodes, of unknown shape. */
  declare(value: Value, dtype: DataType): void {
    this.declared.push({ value, dtype });
  }

  /** One node with one result. `opType` may carry its domain: `com.microsoft.QuickGelu`. */
  op(opType: string, inputs: readonly (Value | undefined)[], attributes: Record<string, AttributeValue> = {}): Value {
    return this.ops(opType, inputs, 1, attributes)[0]!;
  }

  /** One node with several results; those that nobody reads are left out of the file. */
  ops(
    opType: string,
    inputs: readonly (Value | undefined)[],
    numOutputs: number,
    attributes: Record<string, AttributeValue> = {},
  ): Value[] {
    const dot = opType.lastIndexOf(".");
    const shortName = opType.slice(dot + 1);
    const name = this.#names.unique(`${this.#scope}${shortName}`);
    const outputs = Array.from({ length: numOutputs }, (_, i) => new Value(i === 0 ? name : `${name}:${i}`));
    this.nodes.push({
      opType: shortName,
      domain: dot < 0 ? "" : opType.slice(0, dot),
      name,
      inputs,
      outputs,
      attributes: new Map(Object.entries(attributes).map(([key, value]) => [key, toAttribute(value)])),
    });
    return outputs;
  }

  /** A weight. One name, one tensor: asked for again, it is the same value. */
  initializer(name: string, tensor: Tensor): Value {
    const known = this.#weights.get(name);
    if (known !== undefined) return known;
    const value = new Value(this.#names.unique(name));
    this.initializers.push({ value, tensor });
    this.#weights.set(name, value);
    return value;
  }

  /** A small constant held in the file; equal ones are one. */
  constant(tensor: Tensor): Value {
    assert(tensorByteLength(tensor) <= MAX_INLINE_BYTES, "a constant is small; use initializer");
    const bytes = [...tensor.chunks()].map((chunk) => Buffer.from(chunk).toString("hex")).join("");
    const key = `${tensor.dtype}[${tensor.shape}]${bytes}`;
    const known = this.#constants.get(key);
    if (known !== undefined) return known;
    const value = this.initializer(this.#names.unique("constant"), tensor);
    this.#constants.set(key, value);
    return value;
  }
}

/** Names are unique over a graph and all its bodies, as ONNX demands. */
class NameCounter {
  readonly #counts = new Map<string, number>();

  unique(name: string): string {
    const count = this.#counts.get(name) ?? 0;
    this.#counts.set(name, count + 1);
    return count === 0 ? name : `${name}_${count}`;
  }
}

function toAttribute(value: AttributeValue): Attribute {
  if (value instanceof Graph) return { type: "graph", value };
  if (typeof value === "string") return { type: "string", value };
  if (typeof value === "number") {
    assert(Number.isSafeInteger(value), `${value} is not whole; wrap it in float()`);
    return { type: "int", value };
  }
  return "type" in value ? value : { type: "ints", value };
}
