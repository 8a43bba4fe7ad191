/**
 * OrtValues over our own memory, cached by shape so that a step in the steady state makes none.
 * Owns the memory and the values. Finish a run before asking for the next one's values.
 */
import { type SlotStates, slotRange } from "../slot-states.ts";
import type { CudaStates } from "./cuda-states.ts";
import type { ElementType, Handle, OrtApi } from "./ort-api.ts";

/**
 * Shapes cached per buffer. Prefill lengths and batch sizes change; most steps repeat the last
 * ones.
 */
const NUM_CACHED_SHAPES = 32;

type DataOf<Type extends ElementType> = Type extends "int64" ? BigInt64Array<ArrayBuffer> : Float32Array<ArrayBuffer>;

/**
 * One buffer, as large as the largest shape asked for so far, and the values over its beginning.
 */
export class TensorBuffer<Type extends ElementType> {
  readonly #api: OrtApi;
  readonly #memoryInfo: Handle;
  readonly #type: Type;
  readonly #values: HandleCache<string, Handle>;
  #data: DataOf<Type>;

  constructor(api: OrtApi, memoryInfo: Handle, type: Type, numElements: number) {
    this.#api = api;
    this.#memoryInfo = memoryInfo;
    this.#type = type;
    this.#values = new HandleCache(NUM_CACHED_SHAPES, (value) => api.release(value));
    this.#data = allocate(type, numElements);
  }

  /**
   * The first elements: a view, for reading and writing. Valid until a larger shape is asked for.
   */
  view(numElements: number): DataOf<Type> {
    return this.#data.subarray(0, numElements) as DataOf<Type>;
  }

  /**
   * A tensor over the buffer's beginning. The buffer is replaced, contents lost, if it is too
   * small. Owned here.
   */
  value(shape: readonly number[]): Handle {
    return this.#values.get(shape.join(","), () => {
      const numElements = shape.reduce((product, size) => product * size, 1);
      if (numElements > this.#data.length) {
        this.#values.clear(); // they point into the old memory
        this.#data = allocate(this.#type, numElements);
      }
      return this.#api.createTensor(this.#memoryInfo, this.#type, this.view(numElements), shape);
    });
  }

  release(): void {
    this.#values.clear();
  }
}

/** The values over ranges of slots: one list per range, in the order of the state spec. */
export class StateValues {
  readonly #api: OrtApi;
  readonly #memoryInfo: Handle;
  readonly #states: SlotStates | CudaStates;
  readonly #ranges: HandleCache<string, Handle[]>;

  /** `memoryInfo`: of the memory that the states are in. */
  constructor(api: OrtApi, memoryInfo: Handle, states: SlotStates | CudaStates) {
    this.#api = api;
    this.#memoryInfo = memoryInfo;
    this.#states = states;
    // Every prefix (decode) and every single slot (prefill) fits.
    this.#ranges = new HandleCache(2 * states.numSlots, (values) => releaseAll(api, values));
  }

  /** Owned here; valid until the next call. */
  range(firstSlot: number, numSlots: number): readonly Handle[] {
    return this.#ranges.get(`${firstSlot},${numSlots}`, () => this.#create(firstSlot, numSlots));
  }

  release(): void {
    this.#ranges.clear();
  }

  #create(firstSlot: number, numSlots: number): Handle[] {
    const values: Handle[] = [];
    try {
      for (const tensor of this.#states.tensors) {
        const shape = [numSlots, ...tensor.shape];
        if ("address" in tensor) {
          const address = tensor.address + BigInt(firstSlot * tensor.bytesPerSlot);
          const place = { address, numBytes: numSlots * tensor.bytesPerSlot };
          values.push(this.#api.createTensorAt(this.#memoryInfo, tensor.type, place, shape));
        } else {
          const data = slotRange(tensor, firstSlot, numSlots);
          values.push(this.#api.createTensor(this.#memoryInfo, tensor.type, data, shape));
        }
      }
      return values;
    } catch (error) {
      releaseAll(this.#api, values);
      throw error;
    }
  }
}

/** The least recently used is released when there are more than `capacity`. */
class HandleCache<Key, Value> {
  readonly #entries = new Map<Key, Value>();
  readonly #capacity: number;
  readonly #release: (value: Value) => void;

  constructor(capacity: number, release: (value: Value) => void) {
    this.#capacity = capacity;
    this.#release = release;
  }

  get(key: Key, create: () => Value): Value {
    let value = this.#entries.get(key);
    if (value === undefined) value = create();
    else this.#entries.delete(key);
    this.#entries.set(key, value);
    if (this.#entries.size > this.#capacity) {
      const [oldestKey, oldest] = this.#entries.entries().next().value!;
      this.#entries.delete(oldestKey);
      this.#release(oldest);
    }
    return value;
  }

  clear(): void {
    for (const value of this.#entries.values()) this.#release(value);
    this.#entries.clear();
  }
}

function releaseAll(api: OrtApi, values: readonly Handle[]): void {
  for (const value of values) api.release(value);
}

/**
 * NOTE: over an ArrayBuffer: a small typed array's own memory is on V8's heap, where it may move.
 */
function allocate<Type extends ElementType>(type: Type, numElements: number): DataOf<Type> {
  const length = Math.max(1, numElements); // ONNX Runtime wants an address even for an empty tensor
  const data =
    type === "int64" ? new BigInt64Array(new ArrayBuffer(length * 8)) : new Float32Array(new ArrayBuffer(length * 4));
  return data as DataOf<Type>;
}
