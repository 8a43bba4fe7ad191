/**
 * Reads one call as it comes: `{"name": …, "arguments": {…}}`, or the arguments alone. Tells as soon
 * as it can that a text is no call of a known tool. Looks at quotes and brackets only; at its end
 * the whole is parsed.
 */
import { GrowingText } from "./collected-deltas.ts";

/** `parameters` is Llama's name for them. */
const ARGUMENTS: ReadonlySet<string> = new Set(["arguments", "parameters"]);
/** Models write these too; they change nothing. */
const OTHERS: ReadonlySet<string> = new Set(["id", "type"]);
/** In characters, of strings that are no arguments. */
const MAX_STRING = 1024;

export class CallScanner {
  readonly #names: ReadonlySet<string>;
  readonly #json = new GrowingText();
  readonly #isArgumentsAlone: boolean;
  #depth: number;
  /** What comes next in the object of the call. */
  #expects: "key" | "colon" | "value" | "comma";
  #key: string | undefined;
  #name: string | undefined;
  #inString = false;
  #isEscaped = false;
  /** A string or number of the call's object, as far as it is there. */
  #scalar = "";
  #inArguments = false;
  #hasArguments = false;
  /** Arguments that came before the name. */
  readonly #early = new GrowingText();
  #state: "open" | "complete" | "malformed" = "open";
  #hasBegun = false;

  /** @param name the text is the arguments of this tool, and nothing else */
  constructor(names: ReadonlySet<string>, name?: string) {
    this.#names = names;
    this.#name = name;
    this.#isArgumentsAlone = name !== undefined;
    this.#depth = name === undefined ? 0 : 1;
    this.#key = name === undefined ? undefined : "arguments";
    this.#expects = name === undefined ? "key" : "value";
  }

  get state(): "open" | "complete" | "malformed" {
    return this.#state;
  }

  /** Known from when its arguments have begun on, or at the end. */
  get name(): string | undefined {
    return this.#hasBegun ? this.#name : undefined;
  }

  /** @returns what it adds to the arguments, and how much of the text belongs to the call */
  push(text: string): { readonly added: string; readonly length: number } {
    let begin = this.#inArguments ? 0 : -1;
    let added = "";
    let at = 0;
    for (; at < text.length && this.#state === "open"; at++) {
      const wasInside = this.#inArguments;
      this.#character(text[at]!);
      if (!wasInside && this.#inArguments) begin = at;
      if (wasInside && !this.#inArguments) {
        added += text.slice(begin, at + 1);
        begin = -1;
      }
    }
    if (begin >= 0) added += text.slice(begin, at);
    this.#json.push(text.slice(0, at));
    if (this.#state === "complete") this.#check();
    return { added: this.#state === "malformed" ? "" : this.#argumentsWith(added), length: at };
  }

  /** Holds arguments back until the name is known. */
  #argumentsWith(added: string): string {
    if (this.#name === undefined || !this.#hasArguments) {
      this.#early.push(added);
      return "";
    }
    if (this.#hasBegun) return added;
    this.#hasBegun = true;
    return String(this.#early) + added;
  }

  #check(): void {
    try {
      JSON.parse(String(this.#json));
    } catch {
      this.#state = "malformed";
      return;
    }
    if (this.#name === undefined) this.#state = "malformed";
    else if (!this.#hasArguments) {
      this.#hasArguments = true;
      this.#early.push("{}");
    }
  }

  #character(char: string): void {
    const isOwn = this.#depth === 1;
    if (this.#inString) {
      if (isOwn) this.#extend(char);
      if (this.#isEscaped) this.#isEscaped = false;
      else if (char === "\\") this.#isEscaped = true;
      else if (char === '"') {
        this.#inString = false;
        if (isOwn) this.#endString();
      }
      return;
    }
    switch (char) {
      case " ":
      case "\n":
      case "\r":
      case "\t":
        return;
      case '"':
        this.#inString = true;
        if (isOwn) this.#begin(char, "key", "value");
        return;
      case "{":
      case "[":
        if (isOwn) this.#beginNested(char);
        this.#depth++;
        return;
      case "}":
      case "]":
        this.#depth--;
        if (this.#depth === 1) this.#endNested();
        else if (this.#depth <= 0) this.#state = this.#endsWell(char) ? "complete" : "malformed";
        return;
      default:
        if (isOwn) this.#between(char);
    }
  }

  #begin(char: string, ...allowed: string[]): void {
    if (!allowed.includes(this.#expects) || this.#isOfArguments) this.#state = "malformed";
    this.#scalar = char;
  }

  /** Arguments are an object. */
  get #isOfArguments(): boolean {
    return this.#expects === "value" && ARGUMENTS.has(this.#key ?? "");
  }

  #extend(char: string): void {
    this.#scalar += char;
    if (this.#scalar.length > MAX_STRING) this.#state = "malformed";
  }

  #endString(): void {
    let text: unknown;
    try {
      text = JSON.parse(this.#scalar);
    } catch {
      this.#state = "malformed";
      return;
    }
    if (this.#expects === "key") this.#keyIs(String(text));
    else this.#valueIs(String(text));
  }

  #keyIs(key: string): void {
    const isArguments = ARGUMENTS.has(key);
    const isRepeated = isArguments ? this.#hasArguments : key === "name" && this.#name !== undefined;
    if (isRepeated || !(isArguments || key === "name" || OTHERS.has(key))) this.#state = "malformed";
    this.#key = key;
    this.#expects = "colon";
  }

  #valueIs(text: string): void {
    this.#expects = "comma";
    if (this.#key !== "name") return;
    if (this.#names.has(text)) this.#name = text;
    else this.#state = "malformed";
  }

  #beginNested(char: string): void {
    if (this.#isOfArguments && char === "{") {
      this.#inArguments = true;
      this.#hasArguments = true;
    } else if (this.#expects !== "value" || this.#key === "name" || this.#isOfArguments) this.#state = "malformed";
  }

  #endNested(): void {
    this.#inArguments = false;
    this.#expects = "comma";
    if (this.#isArgumentsAlone) this.#state = "complete";
  }

  #endsWell(char: string): boolean {
    return char === "}" && (this.#expects === "comma" || this.#expects === "key");
  }

  /** Between the members of the call's object, or in a number or the like. */
  #between(char: string): void {
    if (char === ":" && this.#expects === "colon") this.#expects = "value";
    else if (char === "," && this.#expects === "comma") this.#expects = "key";
    else if (this.#expects === "value" && OTHERS.has(this.#key ?? "")) this.#expects = "comma";
    else if (this.#expects !== "comma" || !/[\w.+-]/.test(char)) this.#state = "malformed";
  }
}
