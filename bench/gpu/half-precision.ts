/**
 * What 16 bits cost on CUDA, told by a CPU. In a graph for CUDA the matrices, what is multiplied
 * with them and what comes out are of 16 bits, and all between is f32. So it is in a graph of f32
 * for the CPU that rounds these to 16 bits; a product adds up in f32, as cuBLAS's does. The figures
 * of docs/gpu.md, "What runs where", come from here:
 *
 *   npx tsx bench/gpu/half-precision.ts --text FILE [--model DIR]
 *
 * where lines `<|endoftext|>` separate documents.
 */
import { mkdtemp, open, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { evaluate } from "../../src/app/evaluation.ts";
import { markdownTable } from "../../src/bench/figures.ts";
import { compileModel } from "../../src/compiler/compile.ts";
import { lower } from "../../src/compiler/lower.ts";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { narrowBf16, narrowF16, widenBf16, widenF16 } from "../../src/model/dtypes.ts";
import { encodeModel } from "../../src/onnx/encode.ts";
import { ExternalData } from "../../src/onnx/external-data.ts";
import { type Graph, type Node, Value } from "../../src/onnx/graph.ts";
import { DATA_TYPE_CODES, type DataType, type Tensor } from "../../src/onnx/tensor.ts";
import { openKernels } from "../../src/runtime/native/kernel-library.ts";
import { NativeRunner } from "../../src/runtime/native/native-runner.ts";
import { loadTokenizer } from "../../src/tokenizer/load.ts";

const HALVES = ["bf16", "f16"] as const;
type Half = (typeof HALVES)[number];

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
  await compileModel({ modelDir: values.model, precision: "f32", lowering: "kernels", outDir: artifactDir });
  if (precision !== "f32") await overwriteGraphs(artifactDir, precision);
  return NativeRunner.open({ artifactDir, numSlots: 1, numThreads: 0, device: "cpu", kernels });
}

async function overwriteGraphs(artifactDir: string, half: Half): Promise<void> {
  const checkpoint = openCheckpoint(values.model);
  const weights = await open(join(artifactDir, "weights.bin"), "w");
  const external = new ExternalData("weights.bin", async (bytes) => void (await weights.writeFile(bytes)));
  const opsets = ["", "com.microsoft", "densemamba"].map((domain) => ({ domain, version: domain === "" ? 21 : 1 }));
  const producer = { name: "densemamba", version: "half-precision" };
  for (const [file, steps] of [
    ["model.onnx", "many"],
    ["decode.onnx", "one"],
  ] as const) {
    const graph = lower(checkpoint, { precision: "f32", lowering: "kernels" }, steps);
    roundProducts(graph, half);
    await writeFile(join(artifactDir, file), await encodeModel(graph, { opsets, producer, external }));
  }
  await weights.close();
  checkpoint.close();
}

function roundProducts(graph: Graph, half: Half): void {
  const matrices = new Set<Value | undefined>();
  const cast = (from: Value, to: Value, dtype: DataType): Node => ({
    ...{ opType: "Cast", domain: "", name: `${from.name}/to_${dtype}`, inputs: [from], outputs: [to] },
    attributes: new Map([["to", { type: "int", value: DATA_TYPE_CODES[dtype] }]]),
  });
  const round = (from: Value, to: Value) => {
    const rounded = new Value(`${from.name}/${half}`);
    graph.nodes.push(cast(from, rounded, half), cast(rounded, to, "f32"));
  };
  const inputs = new Map<Value, Value>();
  for (const node of graph.nodes.splice(0)) {
    const [x, matrix] = node.inputs as [Value, Value];
    if (node.opType === "Gather" && x.name.includes("embed")) matrices.add(x);
    if (node.opType !== "FusedMatMul") {
      graph.nodes.push(node);
      continue;
    }
    matrices.add(matrix);
    const [y] = node.outputs as [Value];
    const [input, product] = [inputs.get(x) ?? new Value(`${x.name}/rounded`), new Value(`${y.name}/exact`)];
    if (!inputs.has(x)) round(x, input);
    inputs.set(x, input);
    graph.nodes.push({ ...node, inputs: [input, matrix], outputs: [product] });
    round(product, y);
  }
  for (const [i, { value, tensor }] of graph.initializers.entries()) {
    if (matrices.has(value)) graph.initializers[i] = { value, tensor: rounded(tensor, half) };
  }
}

function rounded(tensor: Tensor, half: Half): Tensor {
  return {
    ...tensor,
    *chunks() {
      for (const bytes of tensor.chunks()) {
        const floats = new Float32Array(bytes.slice().buffer);
        yield new Uint8Array((half === "bf16" ? widenBf16(narrowBf16(floats)) : widenF16(narrowF16(floats))).buffer);
      }
    },
  };
}
