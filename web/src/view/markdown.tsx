/**
 * A model's Markdown, which may say anything: its HTML stays text, its images are links, and what
 * becomes HTML passes DOMPurify. A text that grows is rendered block by block, so that a long
 * answer costs no more a frame than a short one.
 */
import DOMPurify from "dompurify";
import { Lexer, Marked } from "marked";
import { useLayoutEffect, useRef } from "preact/hooks";

const TAGS = "a blockquote br code del em h3 h4 h5 h6 hr li ol p pre strong table tbody td th thead tr ul".split(" ");
const ATTRIBUTES = ["align", "href", "start", "title"];

const marked = new Marked({
  breaks: true,
  renderer: {
    html: ({ text }) => escaped(text),
    image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    // The page's own headings come first.
    heading({ tokens, depth }) {
      const level = Math.min(depth + 2, 6);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
  },
});

const purify = DOMPurify();
purify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer");
});

function escaped(text: string): string {
  const entities: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  return text.replaceAll(/[&<>"]/g, (char) => entities[char]!);
}

function toFragment(markdown: string): DocumentFragment {
  const html = marked.parse(markdown, { async: false });
  return purify.sanitize(html, { ALLOWED_TAGS: TAGS, ALLOWED_ATTR: ATTRIBUTES, RETURN_DOM_FRAGMENT: true });
}

/** Splits a text that grows into blocks. */
class Blocks {
  /** They cannot change any more. */
  readonly #done: string[] = [];
  #numDone = 0;

  /** @param text begins with that of the call before, or replaces it */
  split(text: string): readonly string[] {
    if (!text.startsWith(this.#done.at(-1) ?? "", this.#numDone - (this.#done.at(-1)?.length ?? 0))) {
      this.#done.length = 0;
      this.#numDone = 0;
    }
    const open = new Lexer().blockTokens(text.slice(this.#numDone)).map(({ raw }) => raw);
    // What follows may still join the last block, over an empty line.
    for (const block of open.splice(0, Math.max(0, open.length - 2))) {
      this.#done.push(block);
      this.#numDone += block.length;
    }
    return [...this.#done, ...open];
  }
}

export function Markdown({ text }: { readonly text: string }) {
  const blocks = useRef(new Blocks());
  const all = blocks.current.split(text.replaceAll(/\r\n?/g, "\n"));
  return (
    <div class="markdown">
      {all.map((block, index) => (
        <Block key={index} markdown={block} />
      ))}
    </div>
  );
}

function Block({ markdown }: { readonly markdown: string }) {
  const element = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    element.current!.replaceChildren(toFragment(markdown));
  }, [markdown]);
  return <div ref={element} />;
}
