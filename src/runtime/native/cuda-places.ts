/**
 * Where a run on a device has its small inputs and results: laid out alike in the device's memory
 * and in pinned memory of the host, so that they cross the bus in one copy each way.
 */
import { type Manifest, NUM_CANDIDATES } from "../../model/artifact.ts";
import { graphRows, numTokensOf, writeInt64 } from "../run-input.ts";
import type { RunInput } from "../runner.ts";
import type { Copy, Pinned } from "./cuda-stream.ts";
import type { ElementType } from "./ort-api.ts";

/** Of each tensor, in both memories. */
const ALIGNMENT = 256;
const ELEMENT_BYTES = { float32: 4, float16: 2, int64: 8 } as const satisfies Record<ElementType, number>;

export interface Tensor {
  readonly type: ElementType;
  readonly shape: readonly number[];
}

interface Placed extends Tensor {
  readonly offset: number;
}

/** Memory of the device and of the host, of one size. */
export interface Mirrored {
  readonly device: bigint;
  readonly host: Pinned;
}

/** What the layout depends on. */
export interface Sizes {
  readonly numSequences: number;
  readonly numTokens: number;
  /** At least 1. */
  readonly numRows: number;
  /** Whether the graph takes lengths. */
  readonly isRagged: boolean;
}

/** Inputs first, in the order of the graph's names; `logits` are elsewhere. */
interface Layout {
  readonly inputs: readonly Placed[];
  readonly results: readonly Placed[];
  readonly inputBytes: number;
  readonly numBytes: number;
}

/** The size of either memory. */
export function placesBytes(manifest: Manifest, sizes: Sizes): number {
  return layOut(manifest, sizes).numBytes;
}

export class Places {
  /** To the device. */
  readonly inputCopy: Copy;
  /** To the host. */
  readonly resultCopy: Copy;
  /** On the device, in the order of the graph's names. */
  readonly inputs: readonly (Tensor & { readonly address: bigint })[];
  readonly results: readonly (Tensor & { readonly address: bigint })[];
  /** [R, K], [R, K], [R], [R] in the host's memory. */
  readonly topLogits: Float32Array;
  readonly topIds: BigInt64Array;
  readonly logSumExp: Float32Array;
  readonly temperedLogSumExp: Float32Array;
  readonly #tokenIds: BigInt64Array;
  readonly #logitRows: BigInt64Array;
  readonly #temperatures: Float32Array;
  readonly #lengths: BigInt64Array | undefined;

  /** @param memory of `placesBytes` at least */
  constructor(manifest: Manifest, sizes: Sizes, { device, host }: Mirrored) {
    const { inputs, results, inputBytes, numBytes } = layOut(manifest, sizes);
    const onDevice = (tensor: Placed) => ({ ...tensor, address: device + BigInt(tensor.offset) });
    const longs = ({ offset, shape }: Placed) => new BigInt64Array(host.data, offset, product(shape));
    const floats = ({ offset, shape }: Placed) => new Float32Array(host.data, offset, product(shape));
    const [tokenIds, logitRows, temperatures, lengths] = inputs as [Placed, Placed, Placed, Placed?];
    const [topLogits, topIds, logSumExp, temperedLogSumExp] = results as [Placed, Placed, Placed, Placed];
    const afterInputs = BigInt(inputBytes);
    this.inputCopy = { to: device, from: host.address, numBytes: inputBytes };
    this.resultCopy = { to: host.address + afterInputs, from: device + afterInputs, numBytes: numBytes - inputBytes };
    this.inputs = inputs.map(onDevice);
    this.results = results.map(onDevice);
    this.topLogits = floats(topLogits);
    this.topIds = longs(topIds);
    this.logSumExp = floats(logSumExp);
    this.temperedLogSumExp = floats(temperedLogSumExp);
    this.#tokenIds = longs(tokenIds);
    this.#logitRows = longs(logitRows);
    this.#temperatures = floats(temperatures);
    this.#lengths = lengths && longs(lengths);
  }

  /** To the host's memory. */
  write(input: RunInput): void {
    const { logitRows, temperatures } = graphRows(input);
    writeInt64(this.#tokenIds, input.tokenIds);
    writeInt64(this.#logitRows, logitRows);
    this.#temperatures.set(temperatures);
    if (this.#lengths !== undefined) writeInt64(this.#lengths, input.lengths);
  }
}

export function sizesOf(input: RunInput, isRagged: boolean): Sizes {
  const numRows = Math.max(1, input.logitRows.length); // see `graphRows`
  return { numSequences: input.lengths.length, numTokens: numTokensOf(input), numRows, isRagged };
}

export function bytesOf({ type, shape }: Tensor): number {
  return product(shape) * ELEMENT_BYTES[type];
}

function layOut({ sizes }: Manifest, { numSequences, numTokens, numRows, isRagged }: Sizes): Layout {
  let end = 0;
  const place = (type: ElementType, shape: readonly number[]): Placed => {
    const offset = end;
    end += Math.ceil(bytesOf({ type, shape }) / ALIGNMENT) * ALIGNMENT;
    return { type, shape, offset };
  };
  const inputs = [
    place("int64", isRagged ? [1, numTokens] : [numSequences, numTokens / numSequences]),
    place("int64", [numRows]),
    place("float32", [numRows]),
    ...(isRagged ? [place("int64", [numSequences])] : []),
  ];
  const inputBytes = end;
  const numCandidates = Math.min(NUM_CANDIDATES, sizes.vocabSize);
  const results = [
    place("float32", [numRows, numCandidates]),
    place("int64", [numRows, numCandidates]),
    place("float32", [numRows]),
    place("float32", [numRows]),
  ];
  return { inputs, results, inputBytes, numBytes: end };
}

function product(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}
