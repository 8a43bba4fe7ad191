/**
 * A prompt's text as `echo` returns it, and where its tokens begin. Made once for all samples of
 * the prompt, without blocking the event loop for long.
 */
import { setImmediate } from "node:timers/promises";
import { CONTEXT_TOKENS, type Tokenizer } from "../tokenizer/tokenizer.ts";
import { GrowingText } from "./collected-deltas.ts";
import type { PreparedPrompt } from "./prompts.ts";
import { countCharacters, TextOffsets } from "./text-offsets.ts";

const TOKENS_AT_ONCE = 8192;

export interface EchoedPrompt {
  /** Without an incomplete character at its end, which the answer completes. */
  readonly text: string;
  /** Characters (code points) before each token. */
  readonly textOffsets: readonly number[];
}

export function echoPrompt(
  tokenizer: Tokenizer,
  prompt: PreparedPrompt,
  { skipSpecialTokens }: { readonly skipSpecialTokens: boolean },
): Promise<EchoedPrompt> {
  return prompt.echoText === undefined
    ? decodePrompt(tokenizer, prompt, skipSpecialTokens)
    : locateTokens(tokenizer, prompt, prompt.echoText);
}

async function decodePrompt(
  tokenizer: Tokenizer,
  prompt: PreparedPrompt,
  skipSpecialTokens: boolean,
): Promise<EchoedPrompt> {
  const skips = skipSpecialTokens && prompt.isGivenAsTokens !== true;
  const stream = tokenizer.stream({ skipSpecialTokens: skips, contextIds: contextOf(prompt) });
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
  const length = countCharacters(whole);
  return { text: whole, textOffsets: textOffsets.map((offset) => Math.min(offset, length)) };
}

/**
 * The text is as the client wrote it: it contains the special tokens that the client wrote, but not
 * those that the tokenizer added.
 */
async function locateTokens(tokenizer: Tokenizer, prompt: PreparedPrompt, text: string): Promise<EchoedPrompt> {
  const stream = tokenizer.stream({ skipSpecialTokens: true, contextIds: contextOf(prompt) });
  const offsets = new TextOffsets();
  const textOffsets: number[] = [];
  const length = countCharacters(text);
  let at = 0;
  for (const id of prompt.echoIds) {
    textOffsets.push(Math.min(offsets.next, length));
    const special = tokenizer.specialIds.has(id) ? tokenizer.tokenText(id) : undefined;
    let piece = "";
    if (special === undefined) piece = stream.push(id);
    else if (text.startsWith(special, at)) piece = special;
    at += piece.length;
    offsets.add(piece, stream);
    if (textOffsets.length % TOKENS_AT_ONCE === 0) await setImmediate();
  }
  return { text, textOffsets };
}

/** The tokens before the prompt's own. */
function contextOf({ tokenIds, echoIds }: PreparedPrompt): readonly number[] {
  const end = tokenIds.length - echoIds.length;
  return tokenIds.slice(Math.max(0, end - CONTEXT_TOKENS), end);
}
