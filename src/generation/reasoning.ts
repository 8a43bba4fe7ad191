/**
 * Splits an answer's text, as it comes, into what the model thinks (its reasoning) and what it
 * answers. Only a block of reasoning at the very beginning counts: tags later on are text. White
 * space next to tags is left out. Holds back no more than what may be a part of a tag, and white
 * space. Knows no tokens.
 */
import type { ReasoningTags } from "../tokenizer/reasoning-tags.ts";

/** What splits an answer: the tags, and what of the answer's beginning the prompt already has. */
export interface ReasoningStart {
  readonly tags: ReasoningTags;
  /** An opening tag or a part of it, or the text that the answer continues. */
  readonly seed: string;
}

export interface SplitText {
  readonly reasoning: string;
  readonly content: string;
}

const NOTHING: SplitText = { reasoning: "", content: "" };

export class ReasoningSplitter {
  readonly #tags: ReasoningTags;
  /** Reasoning starts after the white space that follows an opening tag. */
  #phase: "start" | "reasoning" | "content" = "start";
  #isOpen = false;
  /** Held back: white space that precedes `#partialTag`. */
  #blank = "";
  /** Held back: the beginning of the tag that is expected. */
  #partialTag = "";
  /** How many of its characters are the prompt's. */
  #numForeign = 0;
  #skipsBlank = false;
  #numPushed = 0;
  #numContent = 0;

  constructor({ tags, seed }: ReasoningStart) {
    this.#tags = tags;
    this.push(seed);
    this.#blank = "";
    this.#numForeign = this.#partialTag.length;
    this.#numPushed = 0;
    this.#numContent = 0;
  }

  /** What comes next; undecided: nothing has shown yet whether there is reasoning. */
  get phase(): "undecided" | "reasoning" | "content" {
    if (this.#phase === "start") return this.#isOpen ? "reasoning" : "undecided";
    return this.#phase;
  }

  /** Whether there has been an opening tag. */
  get hasReasoning(): boolean {
    return this.#isOpen;
  }

  /** The tag that would change what comes next. */
  get expectedTag(): string | undefined {
    if (this.#phase === "content") return undefined;
    return this.#isOpen ? this.#tags.close : this.#tags.open;
  }

  /** How much text has been pushed before the content begins. */
  get contentStart(): number {
    return this.#numPushed - this.#numContent;
  }

  push(text: string): SplitText {
    this.#numPushed += text.length;
    const split = this.#split(text);
    this.#numContent += split.content.length;
    return split;
  }

  /** At the end of the text: what was held back, but for white space after reasoning. */
  flush(): SplitText {
    const rest = this.#partialTag.slice(this.#numForeign);
    const held = this.#blank + rest;
    this.#partialTag = "";
    this.#numForeign = 0;
    this.#blank = "";
    if (this.phase === "reasoning") return { reasoning: rest === "" ? "" : held, content: "" };
    this.#phase = "content";
    this.#numContent += held.length;
    return { reasoning: "", content: held };
  }

  #split(text: string): SplitText {
    if (this.#phase === "content") return { reasoning: "", content: this.#withoutBlank(text) };
    const { open, close } = this.#tags;
    let rest = this.#withoutForeign(this.#partialTag + text);
    this.#partialTag = "";
    while (this.#phase === "start") {
      const tag = rest.trimStart();
      if (tag.startsWith(open)) {
        this.#isOpen = true;
        this.#blank = "";
        rest = tag.slice(open.length);
      } else if (open.startsWith(tag)) {
        if (!this.#isOpen) this.#blank += rest.slice(0, rest.length - tag.length);
        this.#partialTag = tag;
        return NOTHING;
      } else if (this.#isOpen) {
        this.#phase = "reasoning";
        rest = tag;
      } else {
        this.#phase = "content";
        const content = this.#blank + rest;
        this.#blank = "";
        return { reasoning: "", content };
      }
    }
    const at = rest.indexOf(close);
    const end = at === -1 ? rest.length - partialLength(rest, close) : at;
    const reasoning = this.#heldAndTrimmed(rest.slice(0, end));
    if (at === -1) {
      this.#partialTag = rest.slice(end);
      return { reasoning, content: "" };
    }
    this.#phase = "content";
    this.#blank = "";
    this.#skipsBlank = true;
    return { reasoning, content: this.#withoutBlank(rest.slice(at + close.length)) };
  }

  /** The beginning of a tag in the prompt is no text of the answer if no tag comes of it. */
  #withoutForeign(rest: string): string {
    const expected = this.#phase === "start" ? this.#tags.open : this.#tags.close;
    if (this.#numForeign === 0 || expected.startsWith(rest)) return rest;
    const own = rest.startsWith(expected) ? rest : rest.slice(this.#numForeign);
    this.#numForeign = 0;
    return own;
  }

  /** Holds back white space at the end. */
  #heldAndTrimmed(text: string): string {
    const shown = text.trimEnd();
    const before = this.#blank;
    this.#blank = shown === "" ? before + text : text.slice(shown.length);
    return shown === "" ? "" : before + shown;
  }

  /** Of content: without white space after the closing tag. */
  #withoutBlank(text: string): string {
    if (!this.#skipsBlank) return text;
    const shown = text.trimStart();
    this.#skipsBlank = shown === "";
    return shown;
  }
}

/**
 * The seed for a prompt whose end asks for an answer: its opening tag, or as much of it as there
 * is.
 */
export function openingTag({ open }: ReasoningTags, prompt: string): string {
  return prompt.trimEnd().endsWith(open) ? open : open.slice(0, partialLength(prompt, open));
}

/** How much of the beginning of `tag` ends `text`, short of all of it. */
export function partialLength(text: string, tag: string): number {
  let length = Math.min(tag.length - 1, text.length);
  while (!text.endsWith(tag.slice(0, length))) length--;
  return length;
}
