/**
 * Reads safetensors: eight bytes of header length, a JSON header that names each tensor's dtype, shape and byte range,
 * then the data. Nothing in the header is believed before it is checked against the file's size. Knows no family.
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { numElements } from "./state.ts";
import { invalidCheckpoint, type WeightTensor, widenBf16, widenF16 } from "./weights.ts";

const PREFIX_BYTES = 8;

/** The format's own limit. A header of a million tensors fits. */
export const MAX_HEADER_BYTES = 100_000_000;

const DTYPE_BYTES: Readonly<Record<string, number>> = { F32: 4, F16: 2, BF16: 2 };

export interface TensorRecord {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Byte range in the data section. */
  readonly begin: number;
  readonly end: number;
}

export interface SafetensorsFile {
  readonly tensors: readonly WeightTensor[];
  close(): void;
}

/** @throws `invalid_checkpoint` naming the tensor, the value and its bound. */
export function openSafetensors(path: string): SafetensorsFile {
  const fd = openFile(path);
  try {
    const fileBytes = fstatSync(fd).size;
    if (fileBytes < PREFIX_BYTES) {
      throw invalidCheckpoint(`${path}: ${fileBytes} bytes, but a safetensors file has at least ${PREFIX_BYTES}`);
    }
    const headerBytes = readExactly(fd, 0, PREFIX_BYTES, path).readBigUInt64LE();
    const maxHeaderBytes = Math.min(MAX_HEADER_BYTES, fileBytes - PREFIX_BYTES);
    if (headerBytes > BigInt(maxHeaderBytes)) {
      throw invalidCheckpoint(
        `${path}: the header claims ${headerBytes} bytes, but at most ${maxHeaderBytes} are possible`,
      );
    }
    const dataStart = PREFIX_BYTES + Number(headerBytes);
    const header = readExactly(fd, PREFIX_BYTES, Number(headerBytes), path).toString("utf8");
    const records = parseHeader(header, fileBytes - dataStart, path);
    return {
      tensors: records.map((record) => lazyTensor(fd, dataStart, record, path)),
      close: () => closeSync(fd),
    };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/**
 * Checks a header against `dataBytes`, the length of the data section. The tensors come back in the order of their
 * bytes. `path` only names the file in messages.
 * @throws `invalid_checkpoint`
 */
export function parseHeader(header: string, dataBytes: number, path: string): TensorRecord[] {
  let json: unknown;
  try {
    json = JSON.parse(header);
  } catch (cause) {
    throw invalidCheckpoint(`${path}: the header is not JSON`, cause);
  }
  if (!isRecord(json)) throw invalidCheckpoint(`${path}: the header is not a JSON object`);
  const records = Object.entries(json)
    .filter(([name]) => name !== "__metadata__")
    .map(([name, entry]) => parseRecord(name, entry, dataBytes, path))
    .sort((a, b) => a.begin - b.begin || a.end - b.end);
  for (const [i, record] of records.entries()) {
    const previous = records[i - 1];
    if (previous !== undefined && record.begin < previous.end) {
      throw invalidCheckpoint(
        `${path}: tensor ${record.name} begins at byte ${record.begin}, before ${previous.name} ends at ${previous.end}`,
      );
    }
  }
  return records;
}

function parseRecord(name: string, entry: unknown, dataBytes: number, path: string): TensorRecord {
  const fail = (what: string) => invalidCheckpoint(`${path}: tensor ${name}: ${what}`);
  if (!isRecord(entry)) throw fail("its header entry is not an object");
  const { dtype, shape, data_offsets: offsets } = entry;
  const elementBytes = typeof dtype === "string" && Object.hasOwn(DTYPE_BYTES, dtype) ? DTYPE_BYTES[dtype] : undefined;
  if (typeof dtype !== "string" || elementBytes === undefined) {
    throw fail(`dtype ${JSON.stringify(dtype)} is not one of ${Object.keys(DTYPE_BYTES).join(", ")}`);
  }
  if (!isSizes(shape)) throw fail(`shape ${JSON.stringify(shape)} is not a list of whole numbers`);
  if (!isSizes(offsets) || offsets.length !== 2) {
    throw fail(`data_offsets ${JSON.stringify(offsets)} is not a pair of whole numbers`);
  }
  const [begin, end] = offsets as [number, number];
  if (begin > end) throw fail(`data_offsets begin at ${begin}, after their end ${end}`);
  if (end > dataBytes) throw fail(`its data ends at byte ${end}, but the file holds only ${dataBytes} bytes of data`);
  const bytes = numElements(shape) * elementBytes;
  if (bytes !== end - begin) {
    throw fail(`shape [${shape}] in ${dtype} takes ${bytes} bytes, but data_offsets hold ${end - begin}`);
  }
  return { name, dtype, shape, begin, end };
}

function lazyTensor(fd: number, dataStart: number, record: TensorRecord, path: string): WeightTensor {
  const { name, shape, dtype } = record;
  const elementBytes = DTYPE_BYTES[dtype]!;
  return {
    name,
    shape,
    dtype,
    read(start, count) {
      if (start < 0 || count < 0 || start + count > numElements(shape)) {
        throw new RangeError(`${name} has ${numElements(shape)} elements, asked for [${start}, ${start + count})`);
      }
      const position = dataStart + record.begin + start * elementBytes;
      return widen(dtype, readExactly(fd, position, count * elementBytes, `${path}: tensor ${name}`));
    },
  };
}

/** `bytes` owns its whole ArrayBuffer. */
function widen(dtype: string, bytes: Buffer): Float32Array {
  if (dtype === "F32") return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
  return dtype === "F16" ? widenF16(halves) : widenBf16(halves);
}

function readExactly(fd: number, position: number, length: number, what: string): Buffer {
  const bytes = Buffer.from(new ArrayBuffer(length));
  let done = 0;
  while (done < length) {
    const count = readSync(fd, bytes, done, length - done, position + done);
    if (count === 0)
      throw invalidCheckpoint(`${what}: the file ends at byte ${position + done}, ${position + length} needed`);
    done += count;
  }
  return bytes;
}

function openFile(path: string): number {
  try {
    return openSync(path, "r");
  } catch (cause) {
    throw invalidCheckpoint(`cannot open ${path}`, cause);
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}
