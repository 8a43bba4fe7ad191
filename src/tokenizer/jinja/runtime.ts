/**
 * The output of a rendering, and its bounds. Work that grows with the data is charged in advance,
 * in steps of about equal cost, and every text's length is bounded: a rendering of few steps takes
 * little time and memory.
 */
import { TemplateError } from "./error.ts";

/** Characters read or copied in one step. */
const TEXT_PER_STEP = 16;

/** Of nested macros, recursive loops and blocks. Python's stack overflows at 197 macros. */
const MAX_DEPTH = 200;

export interface RenderLimits {
  /**
   * Called at the beginning and when the steps are used up. @returns the number of further steps
   * @throws to stop
   */
  readonly refill: () => number;
  readonly maxLength: number;
}

export class Runtime {
  /** The current line of the template, for error messages. */
  line = 1;
  out = "";
  readonly nowMs: number;
  /** For the test `filter`. Tests cannot import the filters, which run tests. */
  readonly filterNames: ReadonlySet<string>;
  readonly #limits: RenderLimits;
  #steps = 0;
  #depth = 0;

  constructor(limits: RenderLimits, nowMs: number, filterNames: ReadonlySet<string>) {
    this.#limits = limits;
    this.nowMs = nowMs;
    this.filterNames = filterNames;
  }

  spend(steps: number): void {
    this.#steps -= steps;
    while (this.#steps < 0) this.#steps += this.#limits.refill();
  }

  /** For reading a text or an unknown part of it. */
  spendText({ length }: string): void {
    this.spend(1 + length / TEXT_PER_STEP);
  }

  /** Called before making this many characters or list items. */
  reserve(length: number): void {
    const { maxLength } = this.#limits;
    if (length > maxLength)
      throw new TemplateError(`it would make ${length} characters or items; at most ${maxLength} are allowed`);
    this.spend(1 + Math.max(0, length) / TEXT_PER_STEP);
  }

  /** Called after making a text that is not much longer than its input. */
  made(text: string): string {
    this.reserve(text.length);
    return text;
  }

  emit(text: string): void {
    this.out += text;
    this.reserve(text.length);
    if (this.out.length > this.#limits.maxLength) this.reserve(this.out.length);
  }

  /** @returns what `write` emits */
  capture(write: () => void): string {
    if (this.#depth === MAX_DEPTH)
      throw new TemplateError(`macros, loops or blocks are nested more than ${MAX_DEPTH} deep`);
    const before = this.out;
    this.out = "";
    this.#depth++;
    try {
      write();
      return this.out;
    } finally {
      this.out = before;
      this.#depth--;
    }
  }
}
