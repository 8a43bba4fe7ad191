/**
 * Writes GGUF, the file format of llama.cpp's models: named values, then tensors. Version 3, f32
 * tensors only: enough to give the peers the weights that we run. Knows no model.
 */
import { open } from "node:fs/promises";

/** The kinds of values that are used here, by the format's names. */
export type GgufValue =
  | { readonly type: "u32" | "i32" | "f32"; readonly value: number }
  | { readonly type: "bool"; readonly value: boolean }
  | { readonly type: "string"; readonly value: string }
  | { readonly type: "strings"; readonly values: readonly string[] }
  | { readonly type: "i32s" | "f32s"; readonly values: readonly number[] };

export interface GgufTensor {
  readonly name: string;
  /** Row-major, as everywhere in this project; the file reverses it. */
  readonly shape: readonly number[];
  /** All elements in order. Called once. */
  chunks(): Iterable<Float32Array>;
}

export interface GgufFile {
  readonly metadata: Readonly<Record<string, GgufValue>>;
  readonly tensors: readonly GgufTensor[];
}

const VERSION = 3;
/** The format's default: where the tensors begin, and each of them. */
const ALIGNMENT = 32;
const F32_TENSOR = 0;
const TYPE_CODES = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9 } as const;

/** Overwrites `path`. @throws Error if a tensor's elements are not as many as its shape says */
export async function writeGguf(path: string, { metadata, tensors }: GgufFile): Promise<void> {
  const file = await open(path, "w");
  try {
    await file.writeFile(encodeHeader({ metadata, tensors }));
    for (const { name, shape, chunks } of tensors) {
      let numWritten = 0;
      for (const values of chunks()) {
        await file.writeFile(Buffer.from(values.buffer, values.byteOffset, values.byteLength));
        numWritten += values.length;
      }
      if (numWritten !== count(shape)) {
        throw new Error(`tensor ${name} of shape [${shape}] has ${numWritten} elements`);
      }
      await file.writeFile(Buffer.alloc(padding(numWritten * 4)));
    }
  } finally {
    await file.close();
  }
}

/** Everything before the first tensor's bytes, padding included. */
export function encodeHeader({ metadata, tensors }: GgufFile): Buffer {
  const parts: Buffer[] = [Buffer.from("GGUF"), u32(VERSION), u64(tensors.length), u64(Object.keys(metadata).length)];
  for (const [key, value] of Object.entries(metadata)) parts.push(text(key), encodeValue(value));
  let offset = 0;
  for (const { name, shape } of tensors) {
    parts.push(text(name), u32(shape.length), ...[...shape].reverse().map(u64), u32(F32_TENSOR), u64(offset));
    const numBytes = count(shape) * 4;
    offset += numBytes + padding(numBytes);
  }
  const header = Buffer.concat(parts);
  return Buffer.concat([header, Buffer.alloc(padding(header.length))]);
}

function encodeValue(value: GgufValue): Buffer {
  switch (value.type) {
    case "u32":
    case "i32":
    case "f32":
      return Buffer.concat([u32(TYPE_CODES[value.type]), number(value.type, value.value)]);
    case "bool":
      return Buffer.concat([u32(TYPE_CODES.bool), Buffer.of(value.value ? 1 : 0)]);
    case "string":
      return Buffer.concat([u32(TYPE_CODES.string), text(value.value)]);
    case "strings":
      return array("string", value.values.map(text));
    case "i32s":
      return array(
        "i32",
        value.values.map((item) => number("i32", item)),
      );
    case "f32s":
      return array(
        "f32",
        value.values.map((item) => number("f32", item)),
      );
  }
}

function array(type: keyof typeof TYPE_CODES, items: readonly Buffer[]): Buffer {
  return Buffer.concat([u32(TYPE_CODES.array), u32(TYPE_CODES[type]), u64(items.length), ...items]);
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value, "utf8");
  return Buffer.concat([u64(bytes.length), bytes]);
}

function number(type: "u32" | "i32" | "f32", value: number): Buffer {
  const bytes = Buffer.alloc(4);
  if (type === "u32") bytes.writeUInt32LE(value);
  else if (type === "i32") bytes.writeInt32LE(value);
  else bytes.writeFloatLE(value);
  return bytes;
}

function u32(value: number): Buffer {
  return number("u32", value);
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function count(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

function padding(numBytes: number): number {
  return (ALIGNMENT - (numBytes % ALIGNMENT)) % ALIGNMENT;
}
