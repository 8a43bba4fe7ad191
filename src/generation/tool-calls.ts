/**
 * Splits an answer's content, as it comes, into text and calls of tools. Holds back no more than
 * what may begin a call, and white space. A call begins once its tool's name is known, and its
 * arguments come as they are written; if it turns out to be malformed it is withdrawn, and all of
 * it is text. White space next to calls is left out. Knows no tokens.
 */
import type { ToolFormat } from "../tokenizer/tool-formats.ts";
import { CallScanner } from "./call-scanner.ts";
import { GrowingText } from "./collected-deltas.ts";
import { partialLength } from "./reasoning.ts";

/** How an answer is searched for calls. */
export interface ToolCallSearch {
  readonly format: ToolFormat;
  /** Those that may be called. */
  readonly names: ReadonlySet<string>;
  /** The answer ends with its first call. */
  readonly isSingle: boolean;
}

export type AnswerPiece =
  | { readonly type: "content"; readonly text: string }
  | { readonly type: "call"; readonly name: string }
  /** Of the call that has begun last. */
  | { readonly type: "arguments"; readonly text: string }
  /** That call was malformed: its text follows as content. */
  | { readonly type: "withdrawal" };

/** `[TOOL_CALLS]name[CALL_ID]id[ARGS]{…}`, with or without the marks. */
const NAMED_CALL = /^([\w-]{1,64})(?:\[CALL_ID\][\w-]{1,64})?(?:\[ARGS\])?\s*(?=\{)/;
const NAMED_CALL_SO_FAR = /^[\w-]{1,64}(?:\[[\w\]-]{0,80}(?:\[[\w\]]{0,6})?)?\s{0,16}$/;
/** What may stand before the first call, and after a call. */
const BEFORE_FIRST = /^\s*\[?\s*/;
const BEHIND_CALL = /^\s*[,;]?\s*/;
/** A longer text that is no call is not searched for others, as that would take too long. */
const MAX_SEARCHED_AGAIN = 1024;

export class ToolCallSplitter {
  readonly #search: ToolCallSearch;
  /** `between`: after what begins calls, or after a call. */
  #phase: "content" | "between" | "call" = "content";
  /** Not read yet. */
  #rest = "";
  /** White space that may precede a call, or follow one. */
  #blank = "";
  #hasContent = false;
  #isLineStart = true;
  /** All text since calls have begun, or since the last call. */
  #attempt = new GrowingText();
  #attemptLength = 0;
  #numInGroup = 0;
  #isList = false;
  #scanner: CallScanner | undefined;
  #hasBegun = false;
  #numCalls = 0;
  #isDone = false;

  constructor(search: ToolCallSearch) {
    this.#search = search;
  }

  /** These are part of calls, though they may be special tokens. */
  get tags(): readonly string[] {
    const { open, close, marks } = this.#search.format;
    return [open, close, ...marks].filter((tag) => tag !== undefined);
  }

  /** Those that have ended or, once flushed, were cut off. */
  get numCalls(): number {
    return this.#numCalls;
  }

  /** Nothing that follows belongs to the answer. */
  get isDone(): boolean {
    return this.#isDone;
  }

  push(text: string): AnswerPiece[] {
    const out: AnswerPiece[] = [];
    this.#rest += text;
    while (!this.#isDone && this.#step(out));
    return out;
  }

  /**
   * At the end of the text: what was held back.
   * @param isCut there would have been more: a call that has begun stays, incomplete
   */
  flush({ isCut }: { readonly isCut: boolean }): AnswerPiece[] {
    const out: AnswerPiece[] = [];
    if (this.#isDone) return out;
    if (this.#phase === "call" && isCut && this.#hasBegun) {
      this.#numCalls++;
      return out;
    }
    if (this.#phase === "between" && this.#numInGroup > 0) return out;
    if (this.#phase !== "content") this.#giveUp(out, { searchesAgain: false });
    this.#content(this.#rest, out);
    this.#rest = "";
    if (this.#numCalls === 0) this.#emit(this.#blank, out);
    return out;
  }

  /** @returns false if more text is needed */
  #step(out: AnswerPiece[]): boolean {
    if (this.#rest === "") return false;
    switch (this.#phase) {
      case "content":
        return this.#findCalls(out);
      case "between":
        return this.#findCall(out);
      case "call":
        return this.#readCall(out);
    }
  }

  #findCalls(out: AnswerPiece[]): boolean {
    const rest = this.#rest;
    const { open, isBare } = this.#search.format;
    let [at, end] = [open === undefined ? -1 : rest.indexOf(open), 0];
    if (at !== -1) end = at + open!.length;
    const bare = isBare ? (this.#isLineStart ? /(?:^|\n)[ \t]*(?=[{[])/ : /\n[ \t]*(?=[{[])/).exec(rest) : null;
    if (bare !== null && (at === -1 || bare.index + bare[0].length < at)) {
      at = bare.index + bare[0].length;
      end = at;
    }
    const isFound = at !== -1;
    if (!isFound) at = rest.length - (open === undefined ? 0 : partialLength(rest, open));
    this.#content(rest.slice(0, at), out);
    if (!isFound) {
      this.#rest = rest.slice(at);
      return false;
    }
    this.#phase = "between";
    this.#numInGroup = 0;
    this.#isList = false;
    this.#take(end - at, at);
    return true;
  }

  #findCall(out: AnswerPiece[]): boolean {
    const { open, close, marks } = this.#search.format;
    const isFirst = this.#numInGroup === 0;
    const [before] = (isFirst && !this.#isList ? BEFORE_FIRST : BEHIND_CALL).exec(this.#rest)!;
    if (isFirst && before.includes("[")) this.#isList = true;
    this.#take(before.length);
    const rest = this.#rest;
    if (rest === "") return false;
    for (const tag of [close, ...(isFirst ? [] : [open, this.#isList ? "]" : undefined])]) {
      if (tag === undefined) continue;
      if (rest.startsWith(tag)) {
        this.#take(tag.length);
        if (tag === open) return true;
        if (isFirst) this.#giveUp(out);
        else if (this.#search.isSingle) return this.#done();
        else if (tag === close) this.#toContent();
        else this.#isList = false;
        return true;
      }
      if (tag.startsWith(rest)) return false;
    }
    if (!isFirst && this.#search.isSingle) return this.#done();
    if (rest.startsWith("{")) {
      this.#beginCall(new CallScanner(this.#search.names));
      return true;
    }
    if (marks.length > 0 && !this.#isList && this.#findNamedCall()) return this.#phase === "call";
    if (isFirst) this.#giveUp(out);
    else this.#endGroup();
    return true;
  }

  /** @returns whether there is one, or may be */
  #findNamedCall(): boolean {
    const named = NAMED_CALL.exec(this.#rest);
    if (named === null) return NAMED_CALL_SO_FAR.test(this.#rest);
    const name = named[1]!;
    if (!this.#search.names.has(name)) return false;
    this.#take(named[0].length);
    this.#beginCall(new CallScanner(this.#search.names, name));
    return true;
  }

  #beginCall(scanner: CallScanner): void {
    this.#scanner = scanner;
    this.#hasBegun = false;
    this.#phase = "call";
  }

  #readCall(out: AnswerPiece[]): boolean {
    const scanner = this.#scanner!;
    const { added, length } = scanner.push(this.#rest);
    this.#take(length);
    if (!this.#hasBegun && scanner.name !== undefined) {
      this.#hasBegun = true;
      out.push({ type: "call", name: scanner.name });
    }
    if (added !== "") out.push({ type: "arguments", text: added });
    switch (scanner.state) {
      case "open":
        return false;
      case "malformed":
        this.#giveUp(out);
        return true;
      case "complete":
        this.#numCalls++;
        this.#numInGroup++;
        this.#phase = "between";
        this.#attempt = new GrowingText();
        this.#attemptLength = 0;
        // Otherwise what closes the call is read first, as the model will see it again.
        if (this.#search.isSingle && this.#search.format.close === undefined && !this.#isList) return this.#done();
        return true;
    }
  }

  #done(): boolean {
    this.#isDone = true;
    this.#rest = "";
    return false;
  }

  /** Text follows the calls. */
  #endGroup(): void {
    this.#rest = String(this.#attempt).replace(/^\s*\]/, "") + this.#rest;
    this.#toContent();
  }

  /** What seemed to begin a call is text. */
  #giveUp(out: AnswerPiece[], { searchesAgain = this.#attemptLength <= MAX_SEARCHED_AGAIN } = {}): void {
    if (this.#phase === "call" && this.#hasBegun) out.push({ type: "withdrawal" });
    const text = String(this.#attempt);
    // The beginning has been looked at.
    const numRead = searchesAgain && !this.#hasBegun ? (this.#search.format.open?.length ?? 1) : text.length;
    this.#toContent();
    this.#content(text.slice(0, numRead), out);
    this.#rest = text.slice(numRead) + this.#rest;
  }

  #toContent(): void {
    this.#phase = "content";
    this.#hasBegun = false;
    this.#attempt = new GrowingText();
    this.#attemptLength = 0;
    this.#numInGroup = 0;
  }

  /** Moves text from the rest to the attempt. */
  #take(length: number, from = 0): void {
    this.#attempt.push(this.#rest.slice(from, from + length));
    this.#attemptLength += length;
    this.#rest = this.#rest.slice(from + length);
  }

  /** Holds white space at the end back. */
  #content(text: string, out: AnswerPiece[]): void {
    if (text === "") return;
    const shown = text.trimEnd();
    if (shown === "") {
      this.#blank += text;
    } else {
      const isBehindCalls = this.#numCalls > 0 && !this.#hasContent;
      this.#emit(isBehindCalls ? shown.trimStart() : this.#blank + shown, out);
      this.#blank = text.slice(shown.length);
    }
    const line = text.slice(text.lastIndexOf("\n") + 1);
    this.#isLineStart = line.trim() === "" && (this.#isLineStart || line.length < text.length);
  }

  #emit(text: string, out: AnswerPiece[]): void {
    if (text === "") return;
    this.#hasContent = true;
    out.push({ type: "content", text });
  }
}
