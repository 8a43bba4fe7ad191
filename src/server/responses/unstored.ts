/**
 * Responses with `store: false` on one connection: it alone may continue from them, and they are forgotten with it. Each lane
 * has room for a few; the oldest go first.
 */
export class UnstoredResponses {
  readonly #maxPerLane: number;
  readonly #forget: (id: string) => void;
  /** Ids by lane, in the order they were made. */
  readonly #lanes = new Map<string | undefined, string[]>();
  #isClosed = false;

  constructor(maxPerLane: number, forget: (id: string) => void) {
    this.#maxPerLane = maxPerLane;
    this.#forget = forget;
  }

  /** @param id of a response that has ended and is kept */
  add(lane: string | undefined, id: string): void {
    // What ends after its connection has nobody to continue from it.
    if (this.#isClosed) {
      this.#forget(id);
      return;
    }
    const ids = this.#lanes.get(lane) ?? [];
    this.#lanes.set(lane, ids);
    ids.push(id);
    if (ids.length > this.#maxPerLane) this.#forget(ids.shift()!);
  }

  close(): void {
    this.#isClosed = true;
    for (const ids of this.#lanes.values()) for (const id of ids.splice(0)) this.#forget(id);
  }
}
