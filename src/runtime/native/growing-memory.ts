/**
 * Memory that most runs fit into, and a larger piece for the others, which is replaced by one twice
 * as large when needed. The first never moves, since captured graphs use it.
 */
import { callEach } from "./call-each.ts";

export interface MemorySource<Piece> {
  readonly take: (numBytes: number) => Piece;
  readonly giveBack: (piece: Piece) => void;
}

interface Taken<Piece> {
  readonly piece: Piece;
  readonly numBytes: number;
}

export class GrowingMemory<Piece> {
  readonly #source: MemorySource<Piece>;
  readonly #first: Taken<Piece>;
  #larger: Taken<Piece> | undefined;

  /** @throws what `take` throws; likewise `at`. */
  constructor(firstBytes: number, source: MemorySource<Piece>) {
    this.#source = source;
    this.#first = { piece: source.take(firstBytes), numBytes: firstBytes };
  }

  /** At least that size. Earlier pieces that were too small may be freed, except the first. */
  at(numBytes: number): Piece {
    if (numBytes <= this.#first.numBytes) return this.#first.piece;
    if (this.#larger === undefined || numBytes > this.#larger.numBytes) {
      const before = this.#larger;
      this.#larger = undefined;
      if (before !== undefined) this.#source.giveBack(before.piece);
      const size = Math.max(numBytes, 2 * (before?.numBytes ?? 0));
      this.#larger = { piece: this.#source.take(size), numBytes: size };
    }
    return this.#larger.piece;
  }

  release(): void {
    const taken = this.#larger === undefined ? [this.#first] : [this.#larger, this.#first];
    this.#larger = undefined;
    callEach(
      taken.map(
        ({ piece }) =>
          () =>
            this.#source.giveBack(piece),
      ),
    );
  }
}
