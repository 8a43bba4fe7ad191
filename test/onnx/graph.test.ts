import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { encodeModel } from "../../src/onnx/encode.ts";
import { ExternalData } from "../../src/onnx/external-data.ts";
import { float, Graph } from "../../src/onnx/graph.ts";
import { f32Tensor, i64Tensor } from "../../src/onnx/tensor.ts";

const OPTIONS = { opsets: [{ domain: "", version: 21 }], producer: { name: "test", version: "0" } };

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "graph-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Writes the graph with its external data, and opens it. */
async function open(graph: Graph): Promise<InferenceSession> {
  const chunks: Uint8Array[] = [];
  const external = new ExternalData("data.bin", async (bytes) => {
    chunks.push(bytes.slice());
  });
  writeFileSync(join(folder, "graph.onnx"), await encodeModel(graph, { ...OPTIONS, external }));
  writeFileSync(join(folder, "data.bin"), Buffer.concat(chunks));
  return InferenceSession.create(join(folder, "graph.onnx"));
}

async function run(graph: Graph, feeds: Record<string, Tensor>): Promise<Record<string, number[]>> {
  const session = await open(graph);
  const outputs = await session.run(feeds);
  await session.release();
  return Object.fromEntries(
    Object.entries(outputs).map(([name, value]) => [name, Array.from(value.data as Float32Array)]),
  );
}

describe("a graph that was built here", () => {
  it("runs: nodes, attributes of each kind, small constants and dynamic dimensions", async () => {
    const g = new Graph("affine");
    const x = g.input("x", "f32", ["n", 2]);
    const scaled = g.op("Mul", [x, g.constant(f32Tensor([2], [10, 100]))]);
    const clipped = g.op("LeakyRelu", [scaled], { alpha: float(0.5) });
    const [left, right] = g.ops("Split", [clipped, g.constant(i64Tensor([2], [1, 1]))], 2, { axis: 1 });
    g.output("difference", g.op("Sub", [left!, right!]), "f32", ["n", 1]);
    const feeds = { x: new Tensor("float32", Float32Array.of(1, 2, -4, 3), [2, 2]) };
    expect(await run(g, feeds)).toEqual({ difference: [-190, -320] });
  });

  it("runs a Scan whose body reads the outer graph", async () => {
    const g = new Graph("cumulative");
    const initial = g.input("initial", "f32", [1]);
    const xs = g.input("xs", "f32", ["t", 1]);
    const two = g.constant(f32Tensor([1], [2]));
    const body = g.subgraph("step");
    const sum = body.input("sum_in", "f32", [1]);
    const x = body.input("x_t", "f32", [1]);
    const next = body.op("Add", [sum, body.op("Mul", [x, two])]);
    body.output("sum_out", next, "f32", [1]);
    body.output("history", body.op("Identity", [next]), "f32", [1]);
    const [last, history] = g.ops("Scan", [initial, xs], 2, { body, num_scan_inputs: 1 });
    g.output("last", last!, "f32", [1]);
    g.output("all", history!, "f32", ["t", 1]);
    const feeds = {
      initial: new Tensor("float32", Float32Array.of(100), [1]),
      xs: new Tensor("float32", Float32Array.of(1, 2, 3), [3, 1]),
    };
    expect(await run(g, feeds)).toEqual({ last: [112], all: [102, 106, 112] });
  });

  it("keeps large tensors outside, in order, and one storage once", async () => {
    const values = Float32Array.from({ length: 1000 }, (_, i) => i);
    const g = new Graph("shared");
    const i = g.input("i", "i64", [1]);
    const table = { ...f32Tensor([10, 100], values), storage: "table" };
    const wide = g.op("Gather", [g.initializer("rows", table), i]);
    const flat = g.op("Gather", [g.initializer("elements", { ...table, shape: [1000] }), i]);
    g.output("row", wide, "f32", [1, 100]);
    g.output("element", flat, "f32", [1]);
    const other = g.initializer("other", f32Tensor([500], values.subarray(0, 500)));
    g.output("third", g.op("Gather", [other, i]), "f32", [1]);
    let bytes = 0;
    const external = new ExternalData("data.bin", async (chunk) => {
      bytes += chunk.length;
    });
    await encodeModel(g, { ...OPTIONS, external });
    expect(bytes).toBe(4096 + 2000); // the table once, padded to a page, then the other
    const result = await run(g, { i: new Tensor("int64", BigInt64Array.of(7n), [1]) });
    expect(result.row).toEqual(Array.from(values.subarray(700, 800)));
    expect(result.element).toEqual([7]);
    expect(result.third).toEqual([7]);
  });
});

describe("what a builder or encoder refuses", () => {
  it("a float attribute that does not say so", () => {
    expect(() => new Graph("g").op("LeakyRelu", [], { alpha: 0.5 })).toThrow(/0.5 is not whole/);
  });

  it("an output that nothing computes", () => {
    const g = new Graph("g");
    const x = g.input("x", "f32", [1]);
    expect(() => g.output("y", x, "f32", [1])).toThrow(/y is not computed here/);
  });

  it("a tensor whose chunks do not fill its shape", async () => {
    const g = new Graph("g");
    g.initializer("short", { dtype: "f32", shape: [1000], chunks: () => [new Uint8Array(400)] });
    const external = new ExternalData("data.bin", async () => {});
    await expect(encodeModel(g, { ...OPTIONS, external })).rejects.toThrow(
      /short gave 400 bytes, its shape needs 4000/,
    );
  });
});
