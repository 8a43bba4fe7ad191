/**
 * Reads safetensors: eight bytes of header length, a JSON header that names each tensor's dtype,
 * shape and byte range, then the data. Nothing in the header is believed before it is checked
 * against the file's size. Knows no family.
 */
import { DTYPE_BYTES, FLOAT_DTYPES, isFloatDtype, widen } from "./dtypes.ts";
import { type FileReader, openFile } from "./file-reader.ts";
import { numElements } from "./state.ts";
import { isJsonObject, parseJsonObject } from "./strict-json.ts";
import { checkRange, type HeaderBounds, invalidCheckpoint, type Weights, type WeightTensor } from "./weights.ts";

const PREFIX_BYTES = 8;

/** The format's own limit. A header of a million tensors fits. */
export const MAX_HEADER_BYTES = 100_000_000;

export interface TensorRecord {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Byte range in the data section. */
  readonly begin: number;
  readonly end: number;
}

/** @throws `invalid_checkpoint` naming the tensor, the value and its bound. */
export function openSafetensors(path: string): Weights {
  return readSafetensors(openFile(path));
}

/** Closes the file if it fails. @throws as `openSafetensors` */
export function readSafetensors(file: FileReader, bounds: HeaderBounds = {}): Weights {
  const { path } = file;
  try {
    if (file.numBytes < PREFIX_BYTES) {
      throw invalidCheckpoint(`${path}: ${file.numBytes} bytes, but a safetensors file has at least ${PREFIX_BYTES}`);
    }
    const headerBytes = file.read(0, PREFIX_BYTES, "header length").readBigUInt64LE();
    const maxHeaderBytes = Math.min(bounds.maxHeaderBytes ?? MAX_HEADER_BYTES, file.numBytes - PREFIX_BYTES);
    if (headerBytes > BigInt(maxHeaderBytes)) {
      throw invalidCheckpoint(
        `${path}: the header claims ${headerBytes} bytes, but at most ${maxHeaderBytes} are possible`,
      );
    }
    const dataStart = PREFIX_BYTES + Number(headerBytes);
    const header = file.read(PREFIX_BYTES, Number(headerBytes), "header").toString("utf8");
    const records = parseHeader(header, file.numBytes - dataStart, path);
    return {
      tensors: records.map((record) => lazyTensor(file, dataStart, record)),
      close: file.close,
    };
  } catch (error) {
    file.close();
    throw error;
  }
}

/**
 * Checks a header against `dataBytes`, the length of the data section. The tensors come back in the
 * order of their bytes. `path` only names the file in messages.
 * @throws `invalid_checkpoint`
 */
export function parseHeader(header: string, dataBytes: number, path: string): TensorRecord[] {
  const records = Object.entries(parseJsonObject(header, `${path}: the header`))
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
  if (!isJsonObject(entry)) throw fail("its header entry is not an object");
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

function lazyTensor(file: FileReader, dataStart: number, record: TensorRecord): WeightTensor {
  const { name, shape, dtype } = record;
  const elementBytes = DTYPE_BYTES[dtype]!;
  return {
    name,
    shape,
    dtype,
    read(start, count) {
      checkRange(record, start, count);
      if (!isFloatDtype(dtype)) {
        throw invalidCheckpoint(`${file.path}: tensor ${name} is ${dtype}, not one of ${FLOAT_DTYPES.join(", ")}`);
      }
      const position = dataStart + record.begin + start * elementBytes;
      return widen(dtype, file.read(position, count * elementBytes, `tensor ${name}`));
    },
  };
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}
