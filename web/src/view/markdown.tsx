/**
 * A model's Markdown, which may say anything: its HTML stays text, its images are links, and what
 * becomes HTML passes DOMPurify. A text that grows is rendered in chunks, so that a long answer
 * costs hardly more a frame than a short one.
 */
import DOMPurify from "dompurify";
import { Lexer, Marked } from "marked";
import { Component, createRef } from "preact";
import { useRef } from "preact/hooks";

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

/** Of what is rendered together: long enough that there are few, short enough to render anew. */
const CHUNK_LENGTH = 2000;

/** Splits a text that grows into chunks of whole blocks. Only the last chunk changes. */
class Chunks {
  readonly #done: string[] = [];
  #numDone = 0;

  /** @param text begins with that of the call before, or replaces it */
  split(text: string): readonly string[] {
    const last = this.#done.at(-1) ?? "";
    if (!text.startsWith(last, this.#numDone - last.length)) {
      this.#done.length = 0;
      this.#numDone = 0;
    }
    let open = text.slice(this.#numDone);
    if (open.length > CHUNK_LENGTH) {
      // What follows may still join the last block, over an empty line.
      const blocks = new Lexer().blockTokens(open).slice(0, -2);
      for (let chunk = ""; blocks.length > 0; ) {
        chunk += blocks.shift()!.raw;
        if (chunk.length < CHUNK_LENGTH) continue;
        this.#done.push(chunk);
        this.#numDone += chunk.length;
        chunk = "";
      }
      open = text.slice(this.#numDone);
    }
    return [...this.#done, open];
  }
}

export function Markdown({ text }: { readonly text: string }) {
  const chunks = useRef(new Chunks());
  const all = chunks.current.split(text.replaceAll(/\r\n?/g, "\n"));
  return (
    <div class="markdown">
      {all.map((chunk, index) => (
        <Chunk key={index} markdown={chunk} />
      ))}
    </div>
  );
}

class Chunk extends Component<{ readonly markdown: string }> {
  readonly #element = createRef<HTMLDivElement>();

  override shouldComponentUpdate({ markdown }: { readonly markdown: string }): boolean {
    return markdown !== this.props.markdown;
  }

  override componentDidMount(): void {
    this.#element.current!.replaceChildren(toFragment(this.props.markdown));
  }

  override componentDidUpdate(): void {
    this.componentDidMount();
  }

  override render() {
    return <div ref={this.#element} />;
  }
}
