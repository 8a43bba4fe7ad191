/**
 * The file beside an ONNX model that holds its large tensors. They are streamed into it chunk by
 * chunk, so that a model need never be in memory; several graphs may share one file, and the
 * tensors in it.
 */
import { type Tensor, tensorByteLength } from "./tensor.ts";

/**
 * Where tensors start: ONNX Runtime maps the file's pages instead of copying them when offsets are
 * page-aligned.
 */
const ALIGNMENT = 4096;

export interface Placement {
  readonly location: string;
  readonly offset: number;
  readonly length: number;
}

export class ExternalData {
  readonly fileName: string;
  readonly #write: (bytes: Uint8Array) => Promise<void>;
  readonly #placements = new Map<string, Placement>();
  #numBytes = 0;

  /** `write` takes the file's bytes in order. */
  constructor(fileName: string, write: (bytes: Uint8Array) => Promise<void>) {
    this.fileName = fileName;
    this.#write = write;
  }

  /** Bytes written so far. */
  get numBytes(): number {
    return this.#numBytes;
  }

  /**
   * Writes the tensor, unless one of the same key has been: equal keys promise equal bytes.
   * @throws RangeError if the tensor's chunks do not fill its shape.
   */
  async place(key: string, tensor: Tensor): Promise<Placement> {
    const length = tensorByteLength(tensor);
    const known = this.#placements.get(key);
    if (known !== undefined) {
      if (known.length !== length) throw new RangeError(`${key} has ${known.length} bytes and ${length} bytes`);
      return known;
    }
    const padding = -this.#numBytes & (ALIGNMENT - 1);
    if (padding > 0) await this.#append(new Uint8Array(padding));
    const placement = { location: this.fileName, offset: this.#numBytes, length };
    for (const chunk of tensor.chunks()) await this.#append(chunk);
    const written = this.#numBytes - placement.offset;
    if (written !== length) throw new RangeError(`${key} gave ${written} bytes, its shape needs ${length}`);
    this.#placements.set(key, placement);
    return placement;
  }

  async #append(bytes: Uint8Array): Promise<void> {
    await this.#write(bytes);
    this.#numBytes += bytes.length;
  }
}
