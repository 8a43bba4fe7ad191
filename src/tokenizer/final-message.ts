/**
 * Leaves a chat's final message open, so that the model continues it. The message's own text may stand elsewhere, or
 * be empty, so its end is not searched for: it is marked before rendering, as transformers does (PR 40732).
 */
import { rstrip, strip } from "./jinja/space.ts";

const MARK = "CONTINUE_FINAL_MESSAGE_TAG";

interface Message {
  readonly content: string;
}

/** @returns a text that `texts` do not hold */
export function pickMark(texts: readonly string[]): string {
  let mark = MARK;
  for (let i = 1; texts.some((text) => text.includes(mark)); i++) mark = `${MARK}_${i}_`;
  return mark;
}

/** The space behind the mark tells whether the template keeps the spaces at the end. */
export function markFinal<Given extends Message>(messages: readonly Given[], mark: string): readonly Given[] {
  const last = messages.at(-1)!;
  return [...messages.slice(0, -1), { ...last, content: `${last.content}${mark} ` }];
}

/** @returns undefined if the template does not show the end of the final message, or changes the message */
export function cutAtMark(text: string, mark: string, { content }: Message): string | undefined {
  const at = text.lastIndexOf(mark);
  if (at === -1 || !text.includes(strip(content))) return undefined;
  const upToMark = text.slice(0, at);
  return text[at + mark.length] === " " ? upToMark : rstrip(upToMark);
}
