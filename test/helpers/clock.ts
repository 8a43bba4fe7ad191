/** A clock that moves when it is told to. */
export class FakeClock {
  #nowMs: number;

  constructor(nowMs: number = Date.now()) {
    this.#nowMs = nowMs;
  }

  readonly nowMs = (): number => this.#nowMs;

  advance(ms: number): void {
    this.#nowMs += ms;
  }
}
