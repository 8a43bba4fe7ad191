/**
 * Opens what `torch.save` writes (torch ≥ 1.6): a zip that holds a pickle, which says where each
 * tensor lies, and the storages' bytes as they are. Tensors are read in place, straight from the
 * file. Knows no family.
 */
import { DTYPE_BYTES, FLOAT_DTYPES, type FloatDtype, isFloatDtype, widen } from "./dtypes.ts";
import { type FileReader, openFile } from "./file-reader.ts";
import { readStateDict, type TorchTensor } from "./torch-pickle.ts";
import { checkRange, type HeaderBounds, invalidCheckpoint, type Weights, type WeightTensor } from "./weights.ts";
import { readZipDirectory, type ZipEntry } from "./zip.ts";

/** A state dict of a million tensors fits. */
const MAX_PICKLE_BYTES = 256 << 20;
const PICKLE_FILE = "data.pkl";

/** @throws `invalid_checkpoint` naming the tensor or the entry, the value and its bound. */
export function openTorchFile(path: string): Weights {
  return readTorchFile(openFile(path));
}

/** Closes the file if it fails. @throws as `openTorchFile` */
export function readTorchFile(file: FileReader, bounds: HeaderBounds = {}): Weights {
  const { path } = file;
  try {
    const entries = readZipDirectory(file, bounds);
    const { folder, pickle } = findPickle(file, entries, bounds.maxHeaderBytes ?? MAX_PICKLE_BYTES);
    checkByteOrder(file, entries.get(`${folder}byteorder`));
    const bytes = file.read(pickle.position, pickle.numBytes, pickle.name);
    const tensors = readStateDict(bytes, `${path}: ${pickle.name}`).map((tensor) => {
      const entry = entries.get(`${folder}data/${tensor.key}`);
      checkStorage(path, tensor, entry);
      return lazyTensor(file, tensor, entry.position);
    });
    return { tensors, close: file.close };
  } catch (error) {
    file.close();
    throw error;
  }
}

/** All entries lie in one folder, whose name follows the file's. */
function findPickle(
  file: FileReader,
  entries: ReadonlyMap<string, ZipEntry>,
  maxBytes: number,
): { folder: string; pickle: ZipEntry } {
  const found = [...entries.values()].filter(({ name }) => /^[^/]*\/data\.pkl$/.test(name));
  const [pickle] = found;
  if (pickle === undefined || found.length > 1) {
    throw invalidCheckpoint(`${file.path}: ${found.length} entries */${PICKLE_FILE}, where torch.save writes one`);
  }
  if (pickle.numBytes > maxBytes) {
    throw invalidCheckpoint(`${file.path}: ${pickle.name} has ${pickle.numBytes} bytes, at most ${maxBytes} are read`);
  }
  return { folder: pickle.name.slice(0, -PICKLE_FILE.length), pickle };
}

function checkByteOrder(file: FileReader, entry: ZipEntry | undefined): void {
  if (entry === undefined) return;
  const order = file.read(entry.position, Math.min(entry.numBytes, 16), entry.name).toString("utf8");
  if (order !== "little") throw invalidCheckpoint(`${file.path}: byte order ${JSON.stringify(order)} is not "little"`);
}

function checkStorage(path: string, tensor: TorchTensor, entry: ZipEntry | undefined): asserts entry is ZipEntry {
  const { name, key, dtype, storageElements } = tensor;
  if (entry === undefined) throw invalidCheckpoint(`${path}: tensor ${name}: its storage data/${key} is missing`);
  const claimed = storageElements * DTYPE_BYTES[dtype]!;
  if (claimed > entry.numBytes) {
    throw invalidCheckpoint(
      `${path}: tensor ${name}: its storage claims ${claimed} bytes, but data/${key} holds ${entry.numBytes}`,
    );
  }
}

function lazyTensor(file: FileReader, tensor: TorchTensor, storageStart: number): WeightTensor {
  const { name, shape, dtype, strides, offset } = tensor;
  const readElements = (first: number, count: number): Float32Array => {
    const elementBytes = DTYPE_BYTES[dtype]!;
    const position = storageStart + first * elementBytes;
    return widen(dtype as FloatDtype, file.read(position, count * elementBytes, `tensor ${name}`));
  };
  const contiguous = isContiguous(shape, strides);
  return {
    name,
    shape,
    dtype,
    read(start, count) {
      checkRange(tensor, start, count);
      if (!isFloatDtype(dtype)) {
        throw invalidCheckpoint(`${file.path}: tensor ${name} is ${dtype}, not one of ${FLOAT_DTYPES.join(", ")}`);
      }
      if (contiguous) return readElements(offset + start, count);
      return gather(tensor, start, count, readElements);
    },
  };
}

/** Strides of axes of one element mean nothing. */
function isContiguous(shape: readonly number[], strides: readonly number[]): boolean {
  let expected = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] === 1) continue;
    if (strides[axis] !== expected) return false;
    expected *= shape[axis]!;
  }
  return true;
}

/**
 * Elements of a view (a transposed matrix, a slice): reads the stretch of the storage in which they
 * lie.
 */
function gather(
  { shape, strides, offset }: TorchTensor,
  start: number,
  count: number,
  readElements: (first: number, count: number) => Float32Array,
): Float32Array {
  const places = new Float64Array(count);
  let [lowest, highest] = [Number.POSITIVE_INFINITY, 0];
  for (let i = 0; i < count; i++) {
    let rest = start + i;
    let place = offset;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      place += (rest % shape[axis]!) * strides[axis]!;
      rest = Math.floor(rest / shape[axis]!);
    }
    places[i] = place;
    lowest = Math.min(lowest, place);
    highest = Math.max(highest, place);
  }
  if (count === 0) return new Float32Array();
  const stretch = readElements(lowest, highest - lowest + 1);
  return Float32Array.from(places, (place) => stretch[place - lowest]!);
}
