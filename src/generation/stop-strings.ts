/**
 * Stop strings over streamed text: finds the first complete one, and holds back only text that may
 * be the beginning of one. Aho-Corasick, so the cost per character does not depend on how many
 * strings there are or on their length.
 */
import { DenseMambaError } from "../errors.ts";

/** Bounds the automaton: one node a character. */
export const MAX_STOP_TEXT_LENGTH = 16_384;

const ROOT = 0;
/** A node and a UTF-16 unit make one key, which stays an exact integer. */
const UNITS = 0x10000;

/** The strings of one request; shared by its choices. */
export class StopStrings {
  readonly isEmpty: boolean;
  readonly #children = new Map<number, number>();
  /** Per node: the node of its longest proper suffix. */
  readonly #fail: number[] = [ROOT];
  /** Per node: the length of its text. */
  readonly depth: number[] = [0];
  /** Per node: the longest stop string that its text ends with. */
  readonly match: (string | undefined)[] = [undefined];

  /** @throws `invalid_value` for an empty string or too much text. */
  constructor(strings: readonly string[]) {
    const length = strings.reduce((sum, text) => sum + text.length, 0);
    if (length > MAX_STOP_TEXT_LENGTH) {
      throw invalid(`stop strings may have ${MAX_STOP_TEXT_LENGTH} characters together, given ${length}`);
    }
    this.isEmpty = strings.length === 0;
    for (const text of strings) this.#add(text);
    this.#linkSuffixes();
  }

  /** The node after one more UTF-16 unit. */
  step(node: number, unit: number): number {
    for (let at = node; ; at = this.#fail[at]!) {
      const child = this.#children.get(at * UNITS + unit);
      if (child !== undefined) return child;
      if (at === ROOT) return ROOT;
    }
  }

  #add(text: string): void {
    if (text === "") throw invalid("stop strings must not be empty");
    let node = ROOT;
    for (let i = 0; i < text.length; i++) {
      const key = node * UNITS + text.charCodeAt(i);
      let child = this.#children.get(key);
      if (child === undefined) {
        child = this.depth.length;
        this.#children.set(key, child);
        this.depth.push(i + 1);
        this.#fail.push(ROOT);
        this.match.push(undefined);
      }
      node = child;
    }
    this.match[node] = text;
  }

  /** Shallow nodes first: a node's suffixes are all shallower than itself. */
  #linkSuffixes(): void {
    const edges = [...this.#children].sort(([, a], [, b]) => this.depth[a]! - this.depth[b]!);
    for (const [key, child] of edges) {
      const parent = Math.floor(key / UNITS);
      if (parent !== ROOT) this.#fail[child] = this.step(this.#fail[parent]!, key % UNITS);
      this.match[child] ??= this.match[this.#fail[child]!];
    }
  }
}

export interface StopScan {
  /** Text that belongs to the answer for certain. */
  readonly text: string;
  /** The stop string that ended it. Push nothing afterwards. */
  readonly matched?: string;
}

/** Scans one choice's text. Of several strings that end at the same place the longest counts. */
export class StopStringMatcher {
  readonly #strings: StopStrings;
  readonly #includeStopString: boolean;
  #node = ROOT;
  /** Held back; its length is the node's depth. */
  #held = "";

  constructor(strings: StopStrings, options: { readonly includeStopString: boolean }) {
    this.#strings = strings;
    this.#includeStopString = options.includeStopString;
  }

  push(text: string): StopScan {
    const strings = this.#strings;
    let node = this.#node;
    for (let i = 0; i < text.length; i++) {
      node = strings.step(node, text.charCodeAt(i));
      const matched = strings.match[node];
      if (matched === undefined) continue;
      const end = this.#held.length + i + 1;
      const whole = this.#held + text;
      return { text: whole.slice(0, this.#includeStopString ? end : end - matched.length), matched };
    }
    this.#node = node;
    const whole = this.#held + text;
    const certain = whole.length - strings.depth[node]!;
    this.#held = whole.slice(certain);
    return { text: whole.slice(0, certain) };
  }

  /** At the end of the text: what was held back. */
  flush(): string {
    const rest = this.#held;
    this.#held = "";
    this.#node = ROOT;
    return rest;
  }
}

function invalid(message: string): DenseMambaError {
  return new DenseMambaError("invalid_value", message, { param: "stop" });
}
