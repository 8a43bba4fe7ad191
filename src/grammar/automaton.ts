/**
 * Runs a program over bytes: all ways to parse at once, each a place in the program and a stack.
 * Sets of them are states; what a state becomes with a byte is remembered, so a text costs a table
 * lookup a byte where others have been before. Deterministic, bounded in memory.
 */
import { DenseMambaError } from "../errors.ts";
import { type Program, RETURN } from "./program.ts";

/** Ways to parse at once. Ambiguous grammars have many. */
const MAX_THREADS = 1000;
/** Remembered of one grammar. Beyond that the memory starts over. */
const MAX_STATES = 4096;
const MAX_CLOSED = 4 * MAX_STATES;
/** Counts below it fit a stack frame's key. */
const COUNT_RANGE = 2 ** 20;

/** A call or a repetition that is under way. */
class Frame {
  readonly id: number;
  /** Of the instruction. */
  readonly place: number;
  /** Of a repetition: how often its item is complete. -1: a call. */
  readonly count: number;
  readonly parent: Frame | undefined;
  /** This one or one below counts. */
  readonly isCounting: boolean;
  /** The frames on top of this one. */
  readonly children = new Map<number, Frame>();

  constructor(id: number, place: number, count: number, parent: Frame | undefined) {
    this.id = id;
    this.place = place;
    this.count = count;
    this.parent = parent;
    this.isCounting = count !== -1 || parent?.isCounting === true;
  }
}

/** A place that reads a byte, and its stack. */
interface Thread {
  readonly place: number;
  readonly frame: Frame;
}

export class State {
  readonly threads: readonly Thread[];
  /** The text may end here. */
  readonly mayEnd: boolean;
  /** By byte; null: none may come. */
  readonly next: (State | null | undefined)[] = new Array(256);
  /** What a caller remembers of it. */
  memo: unknown;

  constructor(threads: readonly Thread[], mayEnd: boolean) {
    this.threads = threads;
    this.mayEnd = mayEnd;
  }
}

export class Automaton {
  readonly #program: Program;
  #numFrames = 0;
  readonly #root: Frame;
  readonly #states = new Map<string, State>();
  /** What follows from threads that have just read a byte, by those threads. */
  readonly #closed = new Map<string | number, State | undefined>();

  constructor(program: Program) {
    this.#program = program;
    this.#root = new Frame(this.#numFrames++, RETURN, -1, undefined);
  }

  /** @throws `invalid_value` if the grammar is too ambiguous; so does `step` */
  start(): State {
    return this.#close([{ place: this.#program.start, frame: this.#root }])!;
  }

  /** Undefined: the byte may not come. */
  step(state: State, byte: number): State | undefined {
    const known = state.next[byte];
    if (known !== undefined) return known ?? undefined;
    const { instructions } = this.#program;
    const moved: Thread[] = [];
    for (const { place, frame } of state.threads) {
      const instruction = instructions[place]!;
      if (instruction.op === "table") moved.push({ place: instruction.next[byte]!, frame });
      else if (instruction.op === "byte" && instruction.low <= byte && byte <= instruction.high) {
        moved.push({ place: instruction.next, frame });
      }
    }
    const next = moved.length === 0 ? undefined : this.#closeOnce(moved);
    state.next[byte] = next ?? null;
    return next;
  }

  /** Most bytes lead to where others have led. */
  #closeOnce(moved: readonly Thread[]): State | undefined {
    const keys = moved.map(({ place, frame }) => frame.id * this.#program.instructions.length + place);
    const key = keys.length === 1 ? keys[0]! : keys.join();
    if (this.#closed.has(key)) return this.#closed.get(key);
    const state = this.#close(moved);
    if (this.#closed.size >= MAX_CLOSED) this.#closed.clear();
    this.#closed.set(key, state);
    return state;
  }

  /** The only byte that may come; undefined if there are several, or the text may end. */
  onlyByte(state: State): number | undefined {
    if (state.mayEnd) return undefined;
    const { instructions } = this.#program;
    let only: number | undefined;
    for (const { place } of state.threads) {
      const instruction = instructions[place]!;
      if (instruction.op !== "byte" || instruction.low !== instruction.high) return undefined;
      if (only !== undefined && only !== instruction.low) return undefined;
      only = instruction.low;
    }
    return only;
  }

  /**
   * The state that allows the same texts of up to `length` bytes, whatever the counts of its
   * repetitions: those too far from their bounds to matter are all the same.
   */
  nearby(state: State, length: number): State {
    const near = new Map<Frame, Frame>();
    const nearFrame = (frame: Frame): Frame => {
      const chain: Frame[] = [];
      let below = frame;
      for (; below.isCounting && !near.has(below); below = below.parent!) chain.push(below);
      let result = near.get(below) ?? below;
      for (const each of chain.reverse()) {
        result = this.#child(result, each.place, this.#nearCount(each, length));
        near.set(each, result);
      }
      return result;
    };
    const threads = state.threads.map(({ place, frame }) => ({ place, frame: nearFrame(frame) }));
    return threads.every(({ frame }, index) => frame === state.threads[index]!.frame)
      ? state
      : this.#intern(threads, state.mayEnd);
  }

  #nearCount({ place, count }: Frame, length: number): number {
    const instruction = this.#program.instructions[place]!;
    if (count === -1 || instruction.op !== "repeat") return count;
    const { min, max } = instruction;
    if (count < min) return min - count > length ? 0 : count;
    return max - count > length ? min : count;
  }

  /** Follows all that reads no byte. Undefined: nothing is left. */
  #close(threads: readonly Thread[]): State | undefined {
    const { instructions, rules } = this.#program;
    const found: Thread[] = [];
    const seen = new Set<number>();
    const waiting = [...threads];
    let mayEnd = false;
    const repeatFrom = (place: number, frame: Frame, count: number) => {
      const instruction = instructions[place]!;
      if (instruction.op !== "repeat") return;
      const { min, max, item, next } = instruction;
      const kept = max === Number.POSITIVE_INFINITY ? Math.min(count, min) : count;
      if (kept >= min) waiting.push({ place: next, frame });
      if (kept < max) waiting.push({ place: item, frame: this.#child(frame, place, kept) });
    };
    for (let thread = waiting.pop(); thread !== undefined; thread = waiting.pop()) {
      const { place, frame } = thread;
      const key = frame.id * instructions.length + place;
      if (seen.has(key)) continue;
      seen.add(key);
      if (seen.size > 4 * MAX_THREADS || found.length > MAX_THREADS) throw tooAmbiguous();
      const instruction = instructions[place]!;
      switch (instruction.op) {
        case "byte":
        case "table":
          found.push(thread);
          break;
        case "split":
          for (const next of instruction.next) waiting.push({ place: next, frame });
          break;
        case "call": {
          // A call that nothing follows needs no frame.
          const isLast = instruction.next === RETURN;
          waiting.push({
            place: rules[instruction.rule]!,
            frame: isLast ? frame : this.#child(frame, instruction.next, -1),
          });
          break;
        }
        case "repeat":
          repeatFrom(place, frame, 0);
          break;
        case "return":
          if (frame.parent === undefined) mayEnd = true;
          else if (frame.count === -1) waiting.push({ place: frame.place, frame: frame.parent });
          else repeatFrom(frame.place, frame.parent, frame.count + 1);
      }
    }
    return found.length === 0 && !mayEnd ? undefined : this.#intern(found, mayEnd);
  }

  #child(parent: Frame, place: number, count: number): Frame {
    const key = place * COUNT_RANGE + count + 1;
    let child = parent.children.get(key);
    if (child === undefined) {
      child = new Frame(this.#numFrames++, place, count, parent);
      parent.children.set(key, child);
    }
    return child;
  }

  #intern(threads: readonly Thread[], mayEnd: boolean): State {
    const keys = threads.map(({ place, frame }) => `${frame.id}.${place}`).sort();
    const key = mayEnd ? `end ${keys.join(" ")}` : keys.join(" ");
    let state = this.#states.get(key);
    if (state === undefined) {
      if (this.#states.size >= MAX_STATES) this.#forget();
      state = new State(threads, mayEnd);
      this.#states.set(key, state);
    }
    return state;
  }

  /** States in use stay as they are; what they lead to is found again. */
  #forget(): void {
    for (const state of this.#states.values()) {
      state.next.length = 0;
      state.next.length = 256;
      state.memo = undefined;
    }
    this.#states.clear();
    this.#closed.clear();
    this.#root.children.clear();
  }
}

function tooAmbiguous(): DenseMambaError {
  const message = `is too ambiguous: there are more than ${MAX_THREADS} ways to read one text at once`;
  return new DenseMambaError("invalid_value", message);
}
