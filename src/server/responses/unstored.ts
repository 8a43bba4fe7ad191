/**
 * Responses with `store: false`: their connection can continue from them until it closes. Each
 * stream of the connection holds the last few.
 */
export class UnstoredResponses {
  readonly #maxPerStream: number;
  readonly #forget: (id: string) => void;
  /** All that are not forgotten, running or ended. */
  readonly #ids = new Set<string>();
  /** Those that have ended, by stream, the oldest first. */
  readonly #ended = new Map<string | undefined, string[]>();
  #isClosed = false;

  /** @param forget called once per dropped response */
  constructor(maxPerStream: number, forget: (id: string) => void) {
    this.#maxPerStream = maxPerStream;
    this.#forget = forget;
  }

  has(id: string): boolean {
    return this.#ids.has(id);
  }

  /** Call this when the response starts. */
  add(id: string): void {
    this.#ids.add(id);
  }

  /** Call this when the response has ended, if it can be continued from. */
  keep(streamId: string | undefined, id: string): void {
    // Its connection has closed: it cannot be continued.
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
