/**
 * Events from the engine to one consumer. Pushing never waits; a full queue asks the producer to
 * pause until the consumer has caught up. Knows nothing of sequences.
 */

/**
 * A queue with this many unread events is full. A consumer that keeps up has a few at most, as it
 * runs between steps.
 */
export const MAX_UNREAD = 64;
/** With at most this many unread events the consumer has caught up. */
const FEW_UNREAD = MAX_UNREAD / 2;

interface Reader<T> {
  readonly resolve: (result: IteratorResult<T, undefined>) => void;
  readonly reject: (error: unknown) => void;
}

export class EventQueue<T> implements AsyncIterableIterator<T, undefined> {
  readonly #onReturn: () => void;
  readonly #onRoom: () => void;
  readonly #readers: Reader<T>[] = [];
  #events: T[] = [];
  /** Events before this index have been delivered. */
  #next = 0;
  #end: { readonly error?: unknown } | undefined;
  #isAbandoned = false;
  #isFull = false;

  /**
   * @param onReturn called once, when the consumer stops iterating before the end
   * @param onRoom called when the consumer has caught up with a queue that was full
   */
  constructor(onReturn: () => void, onRoom: () => void = () => {}) {
    this.#onReturn = onReturn;
    this.#onRoom = onRoom;
  }

  /** From `MAX_UNREAD` events on until few of them are left. */
  get isFull(): boolean {
    return this.#isFull;
  }

  /** The consumer has stopped iterating; further events are dropped. */
  get isAbandoned(): boolean {
    return this.#isAbandoned;
  }

  push(event: T): void {
    if (this.#isAbandoned) return;
    const reader = this.#readers.shift();
    if (reader !== undefined) reader.resolve({ done: false, value: event });
    else if (this.#events.push(event) - this.#next >= MAX_UNREAD) this.#isFull = true;
  }

  /** No more events. With an error, the consumer gets it once, after the events before it. */
  end(failure: { readonly error?: unknown } = {}): void {
    this.#end = this.#isAbandoned ? {} : failure;
    for (const reader of this.#readers.splice(0)) this.#settle(reader);
  }

  next(): Promise<IteratorResult<T, undefined>> {
    if (this.#next < this.#events.length) {
      const value = this.#events[this.#next++]!;
      if (this.#next === this.#events.length) {
        this.#events = [];
        this.#next = 0;
      }
      if (this.#isFull && this.#events.length - this.#next <= FEW_UNREAD) {
        this.#isFull = false;
        this.#onRoom();
      }
      return Promise.resolve({ done: false, value });
    }
    return new Promise((resolve, reject) => {
      const reader = { resolve, reject };
      if (this.#end === undefined) this.#readers.push(reader);
      else this.#settle(reader);
    });
  }

  return(): Promise<IteratorResult<T, undefined>> {
    const isEarly = this.#end === undefined && !this.#isAbandoned;
    this.#isAbandoned = true;
    this.#events = [];
    this.#next = 0;
    this.#end = {};
    for (const reader of this.#readers.splice(0)) this.#settle(reader);
    if (isEarly) this.#onReturn();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #settle(reader: Reader<T>): void {
    const error = this.#end?.error;
    if (error === undefined) {
      reader.resolve({ done: true, value: undefined });
      return;
    }
    this.#end = {};
    reader.reject(error);
  }
}
