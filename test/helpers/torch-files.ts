/**
 * Writes what `torch.save` writes, and what it never would: pickles and zips by hand, sound or not.
 */
import { writeFileSync } from "node:fs";

export interface ZipSource {
  readonly name: string;
  readonly bytes: Uint8Array;
  /** What the directory says instead of the truth. */
  readonly claims?: { readonly numBytes?: number; readonly position?: number; readonly method?: number };
}

/**
 * Of a stored zip. With `zip64`, sizes and places stand in the wide fields, as they must above 4
 * GiB; with "position" the places alone, as for the small entries at the end of a large file.
 */
export function zipBytes(
  sources: readonly ZipSource[],
  { zip64 = false, numEntries = sources.length }: { zip64?: boolean | "position"; numEntries?: number } = {},
): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let position = 0;
  const add = (part: Buffer) => {
    parts.push(part);
    position += part.length;
  };
  for (const { name, bytes, claims = {} } of sources) {
    const place = claims.position ?? position;
    const numBytes = claims.numBytes ?? bytes.length;
    // The local extra field is torch's padding; the directory has none or another.
    const padding = Buffer.from([0x46, 0x42, 5, 0, 1, 2, 3, 4, 5]);
    const local = Buffer.alloc(30);
    local.writeUInt32LE(0x04034b50, 0);
    local.writeUInt16LE(name.length, 26);
    local.writeUInt16LE(padding.length, 28);
    add(Buffer.concat([local, Buffer.from(name), padding, bytes]));

    const values = zip64 === "position" ? [place] : [numBytes, numBytes, place];
    const wide = Buffer.alloc(4 + 8 * values.length);
    wide.writeUInt16LE(1, 0);
    wide.writeUInt16LE(8 * values.length, 2);
    for (const [i, value] of values.entries()) wide.writeBigUInt64LE(BigInt(value), 4 + 8 * i);
    const entry = Buffer.alloc(46);
    entry.writeUInt32LE(0x02014b50, 0);
    entry.writeUInt16LE(claims.method ?? 0, 10);
    entry.writeUInt32LE(zip64 === true ? 0xffffffff : numBytes, 20);
    entry.writeUInt32LE(zip64 === true ? 0xffffffff : numBytes, 24);
    entry.writeUInt16LE(name.length, 28);
    entry.writeUInt16LE(zip64 ? wide.length : 0, 30);
    entry.writeUInt32LE(zip64 ? 0xffffffff : place, 42);
    directory.push(entry, Buffer.from(name), ...(zip64 ? [wide] : []));
  }
  const directoryStart = position;
  const directoryBytes = Buffer.concat(directory);
  add(directoryBytes);
  if (zip64) {
    const record = Buffer.alloc(56);
    record.writeUInt32LE(0x06064b50, 0);
    record.writeBigUInt64LE(BigInt(numEntries), 32);
    record.writeBigUInt64LE(BigInt(directoryBytes.length), 40);
    record.writeBigUInt64LE(BigInt(directoryStart), 48);
    const locator = Buffer.alloc(20);
    locator.writeUInt32LE(0x07064b50, 0);
    locator.writeBigUInt64LE(BigInt(position), 8);
    add(record);
    add(locator);
  }
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(zip64 ? 0xffff : numEntries, 10);
  end.writeUInt32LE(zip64 ? 0xffffffff : directoryBytes.length, 12);
  end.writeUInt32LE(zip64 ? 0xffffffff : directoryStart, 16);
  add(end);
  return Buffer.concat(parts);
}

/**
 * Pickle source: strings and numbers are instructions' own bytes, so that a test can write any
 * program.
 */
export const op = {
  proto: Buffer.from([0x80, 2]),
  stop: Buffer.from("."),
  mark: Buffer.from("("),
  tuple: Buffer.from("t"),
  reduce: Buffer.from("R"),
  dict: Buffer.from("}"),
  emptyTuple: Buffer.from(")"),
  setItems: Buffer.from("u"),
  persistentId: Buffer.from("Q"),
  false: Buffer.from([0x89]),
  build: Buffer.from("b"),
  global: (module: string, name: string) => Buffer.from(`c${module}\n${name}\n`),
  text(value: string) {
    const head = Buffer.alloc(5);
    head.write("X");
    head.writeUInt32LE(Buffer.byteLength(value), 1);
    return Buffer.concat([head, Buffer.from(value)]);
  },
  /** As LONG1, which holds any size. */
  number(value: number) {
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64LE(BigInt(value));
    return Buffer.concat([Buffer.from([0x8a, 8]), bytes]);
  },
  numbers: (values: readonly number[]) => Buffer.concat([op.mark, ...values.map(op.number), op.tuple]),
};

export interface TorchSource {
  readonly name: string;
  /** `FloatStorage`, … */
  readonly storage: string;
  /** Name of the storage's entry; tensors may share one. Default: the tensor's index. */
  readonly key?: string;
  readonly storageElements: number;
  readonly shape: readonly number[];
  /** Default: row-major. */
  readonly strides?: readonly number[];
  readonly offset?: number;
  readonly parameter?: boolean;
}

/** The pickle of a state dict, as torch writes it but for the memo. */
export function stateDictPickle(tensors: readonly TorchSource[]): Buffer {
  const items = tensors.flatMap((source, i) => {
    const { name, storage, key = String(i), storageElements, shape, offset = 0, parameter = false } = source;
    const strides = source.strides ?? rowMajor(shape);
    const hooks = [op.global("collections", "OrderedDict"), op.emptyTuple, op.reduce];
    const tensor = [
      op.global("torch._utils", "_rebuild_tensor_v2"),
      ...[op.mark, op.mark, op.text("storage"), op.global("torch", storage), op.text(key), op.text("cpu")],
      ...[op.number(storageElements), op.tuple, op.persistentId],
      ...[op.number(offset), op.numbers(shape), op.numbers(strides), op.false, ...hooks, op.tuple, op.reduce],
    ];
    const rebuild = op.global("torch._utils", "_rebuild_parameter");
    const value = parameter ? [rebuild, op.mark, ...tensor, op.false, ...hooks, op.tuple, op.reduce] : tensor;
    return [op.text(name), ...value];
  });
  return Buffer.concat([op.proto, op.dict, op.mark, ...items, op.setItems, op.stop]);
}

/** A whole file: `storages` are the entries under `data/`, by key. */
export function writeTorchFile(
  path: string,
  pickle: Uint8Array,
  storages: Readonly<Record<string, Uint8Array>> = {},
  options: { readonly zip64?: boolean | "position"; readonly byteOrder?: string } = {},
): void {
  const sources = [
    { name: "archive/data.pkl", bytes: pickle },
    ...(options.byteOrder ? [{ name: "archive/byteorder", bytes: Buffer.from(options.byteOrder) }] : []),
    ...Object.entries(storages).map(([key, bytes]) => ({ name: `archive/data/${key}`, bytes })),
    { name: "archive/version", bytes: Buffer.from("3\n") },
  ];
  writeFileSync(path, zipBytes(sources, { zip64: options.zip64 ?? false }));
}

function rowMajor(shape: readonly number[]): number[] {
  return shape.map((_, axis) => shape.slice(axis + 1).reduce((product, size) => product * size, 1));
}
