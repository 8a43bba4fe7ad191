/**
 * What a rendering has: its output, and its bounds. All work that grows with data is paid for before it is done, in steps
 * of about the same size, and every text that is made has a greatest length; so a rendering of few steps is short and small.
 */
import { TemplateError } from "./error.ts";

/** Characters that are read or copied in one step. */
const TEXT_PER_STEP = 16;

/** Of macros, recursive loops and blocks in one another. Python's stack ends at 197 macros. */
const MAX_DEPTH = 200;

export interface RenderLimits {
  /** Called when the steps are used up, and at the beginning. @returns how many there are to go on with @throws to stop */
  readonly refill: () => number;
  readonly maxLength: number;
}

export class Runtime {
  /** Of the template, for error messages: where it is now. */
  line = 1;
  out = "";
  readonly nowMs: number;
  readonly #limits: RenderLimits;
  #steps = 0;
  #depth = 0;

  constructor(limits: RenderLimits, nowMs: number) {
    this.#limits = limits;
    this.nowMs = nowMs;
  }

  spend(steps: number): void {
    this.#steps -= steps;
    while (this.#steps < 0) this.#steps += this.#limits.refill();
  }

  /** Reading a text, or a part that is not known. */
  spendText({ length }: string): void {
    this.spend(1 + length / TEXT_PER_STEP);
  }

  /** Before something of this length is made: characters, or items of a list. */
  reserve(length: number): void {
    const { maxLength } = this.#limits;
    if (length > maxLength)
      throw new TemplateError(`it would make ${length} characters or items; at most ${maxLength} are allowed`);
    this.spend(1 + Math.max(0, length) / TEXT_PER_STEP);
  }

  /** Behind the making of a text that is not much longer than what it was made of. */
  made(text: string): string {
    this.reserve(text.length);
    return text;
  }

  emit(text: string): void {
    this.out += text;
    this.reserve(text.length);
    if (this.out.length > this.#limits.maxLength) this.reserve(this.out.length);
  }

  /** What is written meanwhile. */
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
