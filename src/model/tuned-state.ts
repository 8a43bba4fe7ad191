/**
 * States that RWKV-7 models are tuned to begin with, as RWKV-PEFT and RWKV-Runner write them: a
 * tensor `blocks.N.att.time_state` for each layer, in torch's pickle or in safetensors. The files
 * are untrusted.
 */
import { setImmediate } from "node:timers/promises";
import { narrowF16 } from "./dtypes.ts";
import { memoryFile } from "./file-reader.ts";
import { readSafetensors } from "./safetensors.ts";
import { type StateSpec, type StateTensor, stateBytes, tensorBytes } from "./state.ts";
import { readTorchFile } from "./torch-file.ts";
import { invalidCheckpoint, readAll, type Weights, type WeightTensor } from "./weights.ts";

/** Of a few dozen tensors. */
const MAX_HEADER_BYTES = 2 ** 20;
const ZIP_MAGIC = "PK\u0003\u0004";

/**
 * The whole state of a sequence that has read nothing: what the file does not have is zero.
 * @param name of the file, for messages
 * @throws `invalid_checkpoint`
 */
export async function readTunedState(bytes: Uint8Array, name: string, spec: StateSpec): Promise<Uint8Array> {
  const matrices = spec.filter((tensor) => tensor.name.startsWith("wkv."));
  if (matrices.length === 0) throw invalidCheckpoint(`${name}: tuned states are of RWKV-7; this model is another`);
  const weights = openWeights(bytes, name);
  const found = new Map(weights.tensors.map((tensor) => [tensor.name, tensor]));
  const expected = new Set(matrices.map(fileName));
  for (const tensorName of found.keys()) {
    if (expected.has(tensorName)) continue;
    throw invalidCheckpoint(
      `${name}: tensor ${tensorName} is none of a tuned state of this model, which has blocks.0 to ${matrices.length - 1}.att.time_state`,
    );
  }
  const state = new Uint8Array(stateBytes(spec));
  let at = 0;
  for (const tensor of spec) {
    if (tensor.name.startsWith("wkv.")) {
      const given = found.get(fileName(tensor));
      if (given === undefined) throw invalidCheckpoint(`${name}: tensor ${fileName(tensor)} is missing`);
      state.set(toBytes(readTransposed(given, tensor, name), tensor), at);
      await setImmediate();
    }
    at += tensorBytes(tensor);
  }
  return state;
}

function openWeights(bytes: Uint8Array, name: string): Weights {
  const isZip = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(4, bytes.length)).toString("latin1") === ZIP_MAGIC;
  const file = memoryFile(bytes, name);
  return (isZip ? readTorchFile : readSafetensors)(file, { maxHeaderBytes: MAX_HEADER_BYTES });
}

/** Of `wkv.3`: `blocks.3.att.time_state`. */
function fileName({ name }: StateTensor): string {
  return `blocks.${name.slice("wkv.".length)}.att.time_state`;
}

/** Files have a head's matrix as [value, key], states as [key, value]. */
function readTransposed(given: WeightTensor, { shape }: StateTensor, name: string): Float32Array {
  const [numHeads, size] = shape as readonly [number, number, number];
  if (String(given.shape) !== String(shape)) {
    throw invalidCheckpoint(`${name}: tensor ${given.name} has the shape [${given.shape}]; this model's is [${shape}]`);
  }
  const source = readAll(given);
  const result = new Float32Array(source.length);
  for (let head = 0; head < numHeads; head++) {
    const start = head * size * size;
    for (let value = 0; value < size; value++) {
      for (let key = 0; key < size; key++) {
        const number = source[start + value * size + key]!;
        if (number - number !== 0) {
          throw invalidCheckpoint(`${name}: tensor ${given.name} holds ${number}; states must be finite`);
        }
        result[start + key * size + value] = number;
      }
    }
  }
  return result;
}

function toBytes(numbers: Float32Array, { dtype }: StateTensor): Uint8Array {
  return new Uint8Array((dtype === "f16" ? narrowF16(numbers) : numbers).buffer);
}
