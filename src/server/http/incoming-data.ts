/**
 * Counts the bytes of incomplete bodies and WebSocket messages. Each has its own limit; beyond the
 * limit for all of them the largest is dropped, so that many slow clients cannot block the others.
 */
export class IncomingData {
  readonly #maxBytes: number;
  readonly #all = new Set<Incoming>();
  #totalBytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get totalBytes(): number {
    return this.#totalBytes;
  }

  /** @param onDropped called at most once: must free what has arrived and accept no more */
  begin(onDropped: (maxBytes: number) => void): Incoming {
    const incoming: Incoming = {
      bytes: 0,
      add: (bytes) => {
        if (!this.#all.has(incoming)) return;
        this.#count(incoming, bytes);
        while (this.#totalBytes > this.#maxBytes && this.#all.size > 1) this.#drop(this.#largest());
      },
      end: () => {
        this.#count(incoming, -incoming.bytes);
        this.#all.delete(incoming);
      },
      drop: () => onDropped(this.#maxBytes),
    };
    this.#all.add(incoming);
    return incoming;
  }

  #count(incoming: Incoming, bytes: number): void {
    incoming.bytes += bytes;
    this.#totalBytes += bytes;
  }

  #drop(incoming: Incoming): void {
    incoming.end();
    incoming.drop();
  }

  #largest(): Incoming {
    return [...this.#all].reduce((largest, incoming) => (incoming.bytes > largest.bytes ? incoming : largest));
  }
}

export interface Incoming {
  bytes: number;
  add(bytes: number): void;
  /** It is complete or abandoned. */
  end(): void;
  drop(): void;
}
