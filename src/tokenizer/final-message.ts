/**
 * Leaves a chat's final message open, so that the model continues it. Its text may appear elsewhere
 * too, or be empty, so its end is marked before rendering, as in transformers (PR 40732).
 */
import { rstrip, strip } from "./jinja/space.ts";

const MARK = "CONTINUE_FINAL_MESSAGE_TAG";

interface Message {
  readonly content: string;
  readonly reasoning?: string;
}

/** A message that has nothing but reasoning so far goes on with it. */
export function continuesReasoning({ content, reasoning }: Message): boolean {
  return strip(content) === "" && reasoning !== undefined && strip(reasoning) !== "";
}

/** @returns a text that `texts` do not contain */
export function pickMark(texts: readonly string[]): string {
  let mark = MARK;
  for (let i = 1; texts.some((text) => text.includes(mark)); i++) mark = `${MARK}_${i}_`;
  return mark;
}

/** The space after the mark tells whether the template strips trailing spaces. */
export function markFinal<Given extends Message>(messages: readonly Given[], mark: string): readonly Given[] {
  const last = messages.at(-1)!;
  const marked = continuesReasoning(last)
    ? { ...last, reasoning: `${last.reasoning}${mark} ` }
    : { ...last, content: `${last.content}${mark} ` };
  return [...messages.slice(0, -1), marked];
}

/** @returns undefined if the template changes the final message or leaves out its end */
export function cutAtMark(text: string, mark: string, last: Message): string | undefined {
  const at = text.lastIndexOf(mark);
  const shown = continuesReasoning(last) ? last.reasoning! : last.content;
  if (at === -1 || !text.includes(strip(shown))) return undefined;
  const upToMark = text.slice(0, at);
  return text[at + mark.length] === " " ? upToMark : rstrip(upToMark);
}
