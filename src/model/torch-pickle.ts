/**
 * torch's state dict: which names its pickle may use, and what they mean. Everything else is
 * refused by name, so that no file can make us do more than note where tensors lie. Knows neither
 * zip nor disk.
 */
import { DTYPE_BYTES } from "./dtypes.ts";
import { type PickleHost, readPickle } from "./pickle.ts";
import { numElements } from "./state.ts";
import { invalidCheckpoint } from "./weights.ts";

/** Where a tensor's elements lie; several may share a storage. */
export interface TorchTensor {
  readonly name: string;
  /** The zip entry of its storage, under `data/`. */
  readonly key: string;
  /** Elements that the storage claims. */
  readonly storageElements: number;
  readonly dtype: string;
  readonly shape: readonly number[];
  /** In elements, as torch counts them. */
  readonly strides: readonly number[];
  readonly offset: number;
}

/** `torch.<name>` → dtype. The byte sizes stand in `dtypes.ts`. */
const STORAGES: Readonly<Record<string, string>> = {
  FloatStorage: "F32",
  HalfStorage: "F16",
  BFloat16Storage: "BF16",
  DoubleStorage: "F64",
  LongStorage: "I64",
  IntStorage: "I32",
  ShortStorage: "I16",
  CharStorage: "I8",
  ByteStorage: "U8",
  BoolStorage: "BOOL",
};

class StorageType {
  readonly dtype: string;

  constructor(dtype: string) {
    this.dtype = dtype;
  }
}

class Storage {
  readonly key: string;
  readonly dtype: string;
  readonly numElements: number;

  constructor(key: string, dtype: string, numElements: number) {
    this.key = key;
    this.dtype = dtype;
    this.numElements = numElements;
  }
}

type View = Omit<TorchTensor, "name">;

class Tensor {
  readonly view: View;

  constructor(view: View) {
    this.view = view;
  }
}

type Callable = (args: readonly unknown[], fail: Fail) => unknown;
type Fail = (what: string) => Error;

const CALLABLES: Readonly<Record<string, Callable>> = {
  "collections.OrderedDict": (args, fail) => {
    if (args.length > 0) throw fail(`OrderedDict is made from ${args.length} arguments, not from none`);
    return new Map();
  },
  "torch._utils._rebuild_tensor": rebuildTensor,
  // Further arguments: requires_grad, hooks, metadata.
  "torch._utils._rebuild_tensor_v2": rebuildTensor,
  "torch._utils._rebuild_parameter": unwrapParameter,
  "torch._utils._rebuild_parameter_with_state": unwrapParameter,
};

/**
 * The tensors of a state dict, in its order. `what` names the pickle in messages.
 * @throws `invalid_checkpoint` for any other content, and for a tensor that reaches out of its
 * storage.
 */
export function readStateDict(bytes: Buffer, what: string): TorchTensor[] {
  const fail: Fail = (problem) => invalidCheckpoint(`${what}: ${problem}`);
  const dict = readPickle(bytes, torchHost(fail), what);
  if (!(dict instanceof Map)) throw fail("it does not hold a dict of tensors");
  return [...dict].map(([name, value]) => {
    if (typeof name !== "string") throw fail(`a key of its dict is a ${typeof name}, not a name`);
    if (!(value instanceof Tensor)) throw fail(`${name} is not a tensor`);
    checkView(value.view, (problem) => fail(`tensor ${name}: ${problem}`));
    return { name, ...value.view };
  });
}

function torchHost(fail: Fail): PickleHost {
  return {
    global(name) {
      const storage = name.startsWith("torch.") ? name.slice("torch.".length) : "";
      if (Object.hasOwn(STORAGES, storage)) return new StorageType(STORAGES[storage]!);
      if (Object.hasOwn(CALLABLES, name)) return CALLABLES[name];
      throw fail(`it names ${JSON.stringify(name)}, which weights do not need; refused`);
    },
    call(callable, args) {
      // Only functions of our own table are functions here.
      if (typeof callable !== "function") throw fail("it calls something that is not a function");
      return (callable as Callable)(args, fail);
    },
    persistent(id) {
      const [kind, type, key, , count] = Array.isArray(id) ? id : [];
      if (kind !== "storage" || !(type instanceof StorageType) || typeof key !== "string" || !isSize(count)) {
        throw fail("a reference to a storage is malformed");
      }
      return new Storage(key, type.dtype, count);
    },
  };
}

function rebuildTensor([storage, offset, shape, strides]: readonly unknown[], fail: Fail): Tensor {
  if (!(storage instanceof Storage) || !isSize(offset) || !isSizes(shape) || !isSizes(strides)) {
    throw fail("a tensor is not made of a storage, an offset, sizes and strides");
  }
  if (shape.length !== strides.length) throw fail(`a tensor of shape [${shape}] has strides [${strides}]`);
  const { key, dtype, numElements: storageElements } = storage;
  return new Tensor({ key, dtype, storageElements, offset, shape, strides });
}

function unwrapParameter([data]: readonly unknown[], fail: Fail): Tensor {
  if (!(data instanceof Tensor)) throw fail("a parameter holds no tensor");
  return data;
}

function checkView({ dtype, shape, strides, offset, storageElements }: View, fail: Fail): void {
  const total = numElements(shape);
  if (!Number.isSafeInteger(total * DTYPE_BYTES[dtype]!)) throw fail(`shape [${shape}] holds more than any file`);
  if (total === 0) return;
  const end = shape.reduce((sum, size, axis) => sum + (size - 1) * strides[axis]!, offset) + 1;
  if (end > storageElements) {
    throw fail(
      `shape [${shape}] with strides [${strides}] at ${offset} ends at element ${end}; its storage has ${storageElements}`,
    );
  }
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every(isSize);
}
