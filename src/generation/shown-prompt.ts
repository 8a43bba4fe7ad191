/** The text shown for a prompt, made once for all of its samples, without blocking the event loop for long. */
import { setImmediate } from "node:timers/promises";
import { CONTEXT_TOKENS, type Tokenizer } from "../tokenizer/tokenizer.ts";
import { GrowingText } from "./gathered-choice.ts";
import type { PreparedPrompt } from "./prompts.ts";
import { countCharacters, offsetsInWritten, TextOffsets } from "./text-offsets.ts";

const TOKENS_AT_ONCE = 8192;

export interface ShownPrompt {
  /** Without a character that the prompt leaves open: the answer completes it. */
  readonly text: string;
  /** Where its tokens begin, in characters. */
  readonly textOffsets: readonly number[];
}

export function showPrompt(
  tokenizer: Tokenizer,
  prompt: PreparedPrompt,
  { skipSpecialTokens }: { readonly skipSpecialTokens: boolean },
): Promise<ShownPrompt> {
  return prompt.echoText === undefined
    ? decoded(tokenizer, prompt, skipSpecialTokens)
    : written(tokenizer, prompt, prompt.echoText);
}

async function decoded(tokenizer: Tokenizer, prompt: PreparedPrompt, skipSpecialTokens: boolean): Promise<ShownPrompt> {
  const stream = tokenizer.stream({ skipSpecialTokens, contextIds: contextOf(prompt) });
  const offsets = new TextOffsets();
  const text = new GrowingText();
  const textOffsets: number[] = [];
  for (const id of prompt.echoIds) {
    textOffsets.push(offsets.next);
    const piece = stream.push(id);
    offsets.add(piece, stream);
    text.push(piece);
    if (textOffsets.length % TOKENS_AT_ONCE === 0) await setImmediate();
  }
  const whole = String(text);
  // A character that is left open is shown in the answer.
  const length = countCharacters(whole);
  return { text: whole, textOffsets: textOffsets.map((offset) => Math.min(offset, length)) };
}

async function written(tokenizer: Tokenizer, prompt: PreparedPrompt, text: string): Promise<ShownPrompt> {
  const stream = tokenizer.stream({ skipSpecialTokens: true, contextIds: contextOf(prompt) });
  const textOffsets: number[] = [];
  for (const offset of offsetsInWritten(text, prompt.echoIds, { tokenizer, stream })) {
    textOffsets.push(offset);
    if (textOffsets.length % TOKENS_AT_ONCE === 0) await setImmediate();
  }
  return { text, textOffsets };
}

/** What stands before the tokens that are shown. */
function contextOf({ tokenIds, echoIds }: PreparedPrompt): readonly number[] {
  const end = tokenIds.length - echoIds.length;
  return tokenIds.slice(Math.max(0, end - CONTEXT_TOKENS), end);
}
