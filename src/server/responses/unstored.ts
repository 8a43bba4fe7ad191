/**
 * Responses with `store: false`: the connection that made them can continue from them, and they are forgotten when it
 * closes. Each stream of the connection keeps the last few.
 */
export class UnstoredResponses {
  readonly #maxPerStream: number;
  readonly #forget: (id: string) => void;
  /** Ids of those that run or have ended and are not forgotten. */
  readonly #ids = new Set<string>();
  /** Ids of those that have ended, by stream, the oldest first. */
  readonly #ended = new Map<string | undefined, string[]>();
  #isClosed = false;

  /** @param forget called once for each that is dropped */
  constructor(maxPerStream: number, forget: (id: string) => void) {
    this.#maxPerStream = maxPerStream;
    this.#forget = forget;
  }

  has(id: string): boolean {
    return this.#ids.has(id);
  }

  /** Before the response runs. */
  add(id: string): void {
    this.#ids.add(id);
  }

  /** The response has ended and can be continued from. */
  keep(streamId: string | undefined, id: string): void {
    // Nobody can continue from a response that ends after its connection.
    if (this.#isClosed) {
      this.drop(id);
      return;
    }
    const ids = this.#ended.get(streamId) ?? [];
    this.#ended.set(streamId, ids);
    ids.push(id);
    if (ids.length > this.#maxPerStream) this.drop(ids.shift()!);
  }

  drop(id: string): void {
    this.#ids.delete(id);
    this.#forget(id);
  }

  close(): void {
    this.#isClosed = true;
    for (const ids of this.#ended.values()) for (const id of ids.splice(0)) this.drop(id);
  }
}
