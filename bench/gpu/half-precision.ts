/**
 * What 16 bits cost on CUDA, told by a CPU: the graphs that CUDA is given, in f32, with every weight
 * and every result rounded to the type that it has there. So products add up in f32, as cuBLAS's
 * do. The figures of docs/gpu.md, "Precision", come from here:
 *
 *   npx tsx bench/gpu/half-precision.ts --text FILE [--model DIR]
 *
 * where lines `<|endoftext|>` separate documents.
 */
import assert from "node:assert/strict";
import { mkdtemp, open, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { evaluate } from "../../src/app/evaluation.ts";
import { markdownTable } from "../../src/bench/figures.ts";
import { compileModel } from "../../src/compiler/compile.ts";
import { lower } from "../../src/compiler/lower.ts";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { widenBf16, widenF16 } from "../../src/model/dtypes.ts";
import { readManifest } from "../../src/model/manifest.ts";
import { encodeModel } from "../../src/onnx/encode.ts";
import { ExternalData } from "../../src/onnx/external-data.ts";
import { type Graph, type Node, Value } from "../../src/onnx/graph.ts";
import { DATA_TYPE_CODES, type DataType, type Tensor } from "../../src/onnx/tensor.ts";
import { openKernels } from "../../src/runtime/native/kernel-library.ts";
import { NativeRunner } from "../../src/runtime/native/native-runner.ts";
import { loadTokenizer } from "../../src/tokenizer/load.ts";

const HALVES = ["bf16", "f16"] as const;
type Half = (typeof HALVES)[number];

const CODES = new Map(Object.entries(DATA_TYPE_CODES).map(([name, code]) => [code, name as DataType]));
/** They give what they were given, elsewhere. */
const MOVES = new Set(["Gather", "Reshape", "Split", "Slice", "Concat", "Transpose", "Expand", "Unsqueeze", "Squeeze"]);
const TRUTHS = new Set(["Greater", "Less", "Equal", "GreaterOrEqual", "LessOrEqual"]);

const { values } = parseArgs({
  options: {
    model: { type: "string", default: "models/densemamba-tales-4m" },
    text: { type: "string" },
    cc: { type: "string", default: "cc" },
  },
});
if (values.text === undefined) throw new Error("--text is missing: what is to be predicted");

const tokenizer = (await loadTokenizer(values.model))!;
const texts = (await readFile(values.text, "utf8")).split(/^<\|endoftext\|>\n?/m).filter((text) => text.trim() !== "");
const documents = await Promise.all(
  texts.map(async (text) => ({
    tokenIds: [
      tokenizer.bosTokenId ?? tokenizer.eosTokenId ?? 0,
      ...(await tokenizer.encode(text, { addSpecialTokens: false })),
    ],
    numBytes: Buffer.byteLength(text),
  })),
);
const kernels = await openKernels({
  ...{ libraryPath: undefined, sourceDir: "kernels", cacheDir: ".cache", cc: values.cc, target: "host" },
  onBuild: () => {},
});

const folder = await mkdtemp(join(tmpdir(), "densemamba-half-precision-"));
try {
  const reference = await openRunner("f32");
  const rows: string[][] = [];
  for (const half of HALVES) {
    const runner = await openRunner(half);
    const { numTokens, loss, against } = await evaluate({
      ...{ runner, reference, documents, chunk: 256 },
      onProgress: () => {},
    });
    const [own, f32] = [Math.exp(loss / numTokens), Math.exp(against!.loss / numTokens)];
    const rise = `${(100 * (own / f32 - 1)).toFixed(3)}%`;
    const divergence = (against!.divergence / numTokens).toExponential(1);
    const agreement = `${((100 * against!.numAgreeing) / numTokens).toFixed(2)}%`;
    rows.push([half, String(numTokens), f32.toFixed(3), own.toFixed(3), rise, divergence, agreement]);
    await runner.close();
  }
  await reference.close();
  const header = ["", "tokens", "perplexity in f32", "perplexity", "rises by", "mean KL", "top-1 agrees"];
  console.log(markdownTable(header, rows));
} finally {
  await rm(folder, { recursive: true });
}

async function openRunner(precision: "f32" | Half): Promise<NativeRunner> {
  const artifactDir = join(folder, precision);
  await compileModel({ modelDir: values.model, precision: "f32", lowering: "cuda", outDir: artifactDir });
  if (precision !== "f32") await overwriteGraph(artifactDir, precision);
  // Our operators are the same for both devices, to f32's rounding.
  const { device: _, decodeGraph: __, ...manifest } = await readManifest(artifactDir);
  await writeFile(join(artifactDir, "manifest.json"), JSON.stringify(manifest));
  return NativeRunner.open({ artifactDir, numSlots: 1, numThreads: 0, device: "cpu", kernels });
}

async function overwriteGraph(artifactDir: string, half: Half): Promise<void> {
  const checkpoint = openCheckpoint(values.model);
  const graph = lower(checkpoint, half, "many", "cuda");
  roundResults(graph, half);
  const weights = await open(join(artifactDir, "weights.bin"), "w");
  const external = new ExternalData("weights.bin", async (bytes) => void (await weights.writeFile(bytes)));
  const opsets = ["", "com.microsoft", "densemamba"].map((domain) => ({ domain, version: domain === "" ? 21 : 1 }));
  const producer = { name: "densemamba", version: "half-precision" };
  await writeFile(join(artifactDir, "model.onnx"), await encodeModel(graph, { opsets, producer, external }));
  await weights.close();
  checkpoint.close();
}

/** The graph of 16 bits as one of f32, in which each result of that type is rounded to it. */
function roundResults(graph: Graph, half: Half): void {
  const types = new Map(graph.inputs.map(({ value, dtype }) => [value, dtype]));
  for (const [i, { value, tensor }] of graph.initializers.entries()) {
    types.set(value, tensor.dtype);
    if (tensor.dtype === half) graph.initializers[i] = { value, tensor: widened(tensor, half) };
  }
  const cast = (from: Value, to: Value, dtype: DataType): Node => ({
    ...{ opType: "Cast", domain: "", name: to.name, inputs: [from], outputs: [to] },
    attributes: new Map([["to", { type: "int", value: DATA_TYPE_CODES[dtype] }]]),
  });
  for (const node of graph.nodes.splice(0)) {
    const [output] = node.outputs as [Value];
    const dtype = typeOf(node, types);
    for (const [i, value] of node.outputs.entries())
      types.set(value, node.opType === "TopK" && i === 1 ? "i64" : dtype);
    if (dtype !== half || MOVES.has(node.opType)) {
      graph.nodes.push(node);
      continue;
    }
    assert(node.outputs.length === 1, `${node.name} has several results`);
    const [exact, rounded] = [new Value(`${output.name}/exact`), new Value(`${output.name}/${half}`)];
    const isCast = node.opType === "Cast";
    if (!isCast) graph.nodes.push({ ...node, outputs: [exact] });
    graph.nodes.push(cast(isCast ? node.inputs[0]! : exact, rounded, half), cast(rounded, output, "f32"));
  }
}

/** Of a node's first result. */
function typeOf({ opType, domain, inputs, attributes }: Node, types: ReadonlyMap<Value, DataType>): DataType {
  const to = attributes.get("to");
  if (opType === "Cast" && to?.type === "int") return CODES.get(to.value)!;
  if (domain === "densemamba") return "f32";
  if (TRUTHS.has(opType)) return "bool";
  const dtype = types.get(inputs[opType === "Where" ? 1 : 0]!);
  assert(dtype !== undefined, `of what type is ${opType}?`);
  return dtype;
}

function widened(tensor: Tensor, half: Half): Tensor {
  const widen = half === "bf16" ? widenBf16 : widenF16;
  return {
    dtype: "f32",
    shape: tensor.shape,
    *chunks() {
      for (const { buffer, byteOffset, byteLength } of tensor.chunks()) {
        yield new Uint8Array(widen(new Uint16Array(buffer, byteOffset, byteLength / 2)).buffer);
      }
    },
  };
}
