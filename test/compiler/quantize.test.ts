/** Codes and scales, decoded here by the kernels' rule, against the weights that they stand for. */
import { rm } from "node:fs/promises";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compileModel } from "../../src/compiler/compile.ts";
import type { Matrix } from "../../src/compiler/matrix.ts";
import { type Bits, bitsOf, type MatrixRole, quantize } from "../../src/compiler/quantize.ts";
import type { LoweringKind, Precision } from "../../src/model/artifact.ts";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { ReferenceModel } from "../../src/model/reference.ts";
import { type Tensor, tensorByteLength } from "../../src/onnx/tensor.ts";
import { maxDifference, relativeError } from "../helpers/arrays.ts";
import {
  type RawTensor,
  randomCheckpoint,
  readRawTensors,
  TINY_RETNET,
  TINY_SHAPE,
  temporaryFolder,
  writeRawTensors,
} from "../helpers/checkpoints.ts";
import { GraphSession } from "./graph-session.ts";

/** Of logits, where only activations are rounded. */
const TOLERANCE = 0.15;

function matrixOf(values: Float32Array, numColumns: number): Matrix {
  const readRows = (start: number, count: number) => values.slice(start * numColumns, (start + count) * numColumns);
  return { name: "weight", numRows: values.length / numColumns, numColumns, readRows };
}

function bytesOf(tensor: Tensor): Uint8Array {
  const bytes = Uint8Array.from(Buffer.concat([...tensor.chunks()]));
  expect(bytes.length).toBe(tensorByteLength(tensor));
  return bytes;
}

/** (code - zero) · scale; the first of two four-bit codes is the lower half of its byte. */
function decoded(values: Float32Array, numColumns: number, bits: Bits): Float32Array {
  const quantized = quantize(matrixOf(values, numColumns), "w", bits, "rows")!;
  const bytes = bytesOf(quantized.codes);
  const scales = new Float32Array(bytesOf(quantized.scales).buffer);
  return values.map((_, i) => {
    const code = bits === 8 ? bytes[i]! - 128 : ((bytes[i >> 1]! >> (4 * (i & 1))) & 15) - 8;
    return code * scales[Math.floor(i / quantized.blockSize)]!;
  });
}

const weights = fc
  .array(fc.float({ min: -4, max: 4, noNaN: true }), { minLength: 128, maxLength: 128 })
  .map((values) => Float32Array.from(values));

function squaredError(a: Float32Array, b: Float32Array): number {
  return a.reduce((sum, value, i) => sum + (value - b[i]!) ** 2, 0);
}

describe("a matrix in eight bits", () => {
  it("is within half a step of itself everywhere", () => {
    fc.assert(
      fc.property(weights, (values) => {
        const largest = values.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
        expect(maxDifference(decoded(values, 128, 8), values)).toBeLessThanOrEqual((largest / 127 / 2) * 1.0001);
      }),
    );
  });
});

describe("a matrix in four bits", () => {
  it("is as near as the scales that put each block's extreme at -7 or at -8 would bring it, or nearer", () => {
    fc.assert(
      fc.property(weights, (values) => {
        const found = squaredError(decoded(values, 128, 4), values);
        for (const place of [-7, -8]) {
          const plain = values.slice();
          for (let start = 0; start < values.length; start += 32) {
            const block = values.subarray(start, start + 32);
            const scale = block.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a), 0) / place;
            for (const [i, value] of block.entries()) {
              plain[start + i] = scale === 0 ? 0 : Math.max(-8, Math.min(7, Math.round(value / scale))) * scale;
            }
          }
          expect(found).toBeLessThanOrEqual(squaredError(plain, values) * 1.0001 + 1e-9);
        }
      }),
    );
  });

  it("keeps what sixteen levels can hold, and zeros", () => {
    const levels = Float32Array.from({ length: 64 }, (_, i) => ((i % 16) - 8) / 4);
    expect(decoded(levels, 64, 4)).toEqual(levels);
    expect(
      maxDifference(
        decoded(
          levels.map((x) => -x),
          64,
          4,
        ),
        levels.map((x) => -x),
      ),
    ).toBe(0);
    expect(maxDifference(decoded(new Float32Array(64), 32, 4), new Float32Array(64))).toBe(0);
  });

  it("has the same scales whether its codes were asked for before or not", () => {
    const values = Float32Array.from({ length: 320 }, (_, i) => Math.sin(i * i));
    const { codes, scales } = quantize(matrixOf(values, 64), "w", 4, "rows")!;
    const alone = bytesOf(scales);
    bytesOf(codes);
    expect(bytesOf(scales)).toEqual(alone);
    expect(bytesOf(scales)).toEqual(alone);
  });

  it.each([4, 8] as const)("fills rows that no block divides up with zeros, in %s bits", (bits) => {
    const values = Float32Array.from({ length: 48 }, (_, i) => i + 1);
    const filled = Float32Array.from({ length: 64 }, (_, i) => (i % 32 < 24 ? values[(i >> 5) * 24 + (i % 32)]! : 0));
    const [short, wide] = [matrixOf(values, 24), matrixOf(filled, 32)].map((of) => quantize(of, "w", bits, "rows"));
    expect(short!.numColumns).toBe(32);
    const bytes = (tensor: Tensor) => Buffer.concat([...tensor.chunks()]);
    expect(bytes(short!.codes)).toEqual(bytes(wide!.codes));
    expect(bytes(short!.scales)).toEqual(bytes(wide!.scales));
  });
});

it("says how many bits a matrix is worth by what it is for", () => {
  const small = matrixOf(new Float32Array(64), 32);
  const large = { ...small, numRows: 5000 };
  const bits = (precision: Precision, role: MatrixRole, of: Matrix, kind: LoweringKind = "plain") =>
    bitsOf({ precision, kind }, role, of);
  expect(bits("f32", "projection", large)).toBeUndefined();
  expect([bits("int8", "projection", small), bits("int4", "projection", small)]).toEqual([8, 4]);
  expect([bits("int8", "table", small), bits("int4", "table", small)]).toEqual([8, 8]);
  expect([bits("int4", "selection", small), bits("int4", "selection", large)]).toEqual([undefined, 8]);
  expect(bits("int4", "selection", small, "kernels")).toBe(8);
  expect(bits("int4", "step size", large)).toBeUndefined();
});

/**
 * The matrix on sixteen levels about zero, the lowest in every block: four bits hold it exactly.
 */
function onLevels({ dtype, shape, bytes }: RawTensor): RawTensor {
  if (shape.length !== 2 || shape[1]! % 32 !== 0) return { dtype, shape, bytes };
  const values = new Float32Array(Uint8Array.from(bytes).buffer);
  const scale = values.reduce((max, value) => Math.max(max, Math.abs(value)), 0) / 8;
  const levels = values.map((value, i) => (i % 32 === 0 ? -8 : Math.min(7, Math.round(value / scale))) * scale);
  return { dtype, shape, bytes: new Uint8Array(levels.buffer) };
}

describe.each([
  ["DenseMamba", TINY_SHAPE],
  ["DenseRetNet", TINY_RETNET],
])("a random %s whose weights four bits hold exactly, compiled in int4", (_, shape) => {
  it("is as near the oracle as eight-bit activations allow, whole, in chunks and in the decode graph", async () => {
    const tokens = [5, 17, 42, 3, 79, 0, 8, 61, 33];
    const modelDir = await randomCheckpoint(shape);
    const exact = [...readRawTensors(modelDir)].map(([name, tensor]) => [name, onLevels(tensor)] as const);
    writeRawTensors(modelDir, new Map(exact));
    const outDir = temporaryFolder();
    const manifest = await compileModel({ modelDir, precision: "int4", outDir });
    const session = await GraphSession.open(outDir, manifest);
    const decode = await GraphSession.open(outDir, manifest, manifest.decodeGraph);
    const checkpoint = openCheckpoint(modelDir);
    const oracle = new ReferenceModel(checkpoint);
    const expected = oracle.forward(tokens, oracle.newState());
    checkpoint.close();

    const whole = await session.step([tokens], session.emptyStates(1));
    const chunk = await session.step([tokens.slice(0, 8)], session.emptyStates(1));
    const last = await decode.step([tokens.slice(8)], chunk.states);
    for (const [t, row] of expected.entries()) expect(relativeError(whole.logits[t]!, row)).toBeLessThan(TOLERANCE);
    expect(relativeError(last.logits[0]!, expected[8]!)).toBeLessThan(TOLERANCE);

    await Promise.all([session.close(), decode.close()]);
    await Promise.all([modelDir, outDir].map((dir) => rm(dir, { recursive: true })));
  });
});
