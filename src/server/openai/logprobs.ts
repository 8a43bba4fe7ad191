/**
 * Log-probabilities in the shapes of completions, of chat, and of vLLM's `prompt_logprobs`. The sampled token's number is
 * the same one, bit for bit, wherever it appears.
 */
import type { TextLogprob, TokenDetail } from "../../generation/events.ts";

/** JSON has no -Infinity; vLLM's stand-in for it. */
const LOWEST = -9999;

const finite = (logprob: number) => (logprob < LOWEST ? LOWEST : logprob);

export interface CompletionLogprobs {
  readonly tokens: string[];
  readonly token_logprobs: (number | null)[];
  readonly top_logprobs: (Record<string, number> | null)[];
  readonly text_offset: number[];
}

/** Builds one choice's completions logprobs, over several chunks if streamed: offsets count on through `text`. */
export class CompletionLogprobsBuilder {
  /** Characters (code points) of the choice's text before the next token. */
  #offset = 0;

  build(details: readonly (TokenDetail | null)[], tokenText?: (position: number) => string): CompletionLogprobs {
    const tokens: string[] = [];
    const tokenLogprobs: (number | null)[] = [];
    const topLogprobs: (Record<string, number> | null)[] = [];
    const textOffset: number[] = [];
    for (const [position, detail] of details.entries()) {
      textOffset.push(this.#offset);
      if (detail === null) {
        const text = tokenText?.(position) ?? "";
        tokens.push(text);
        tokenLogprobs.push(null);
        topLogprobs.push(null);
        this.#offset += [...text].length;
      } else {
        tokens.push(detail.text);
        tokenLogprobs.push(finite(detail.logprob));
        topLogprobs.push(topMap(detail));
        this.#offset += numCharactersStarted(detail.bytes);
      }
    }
    return { tokens, token_logprobs: tokenLogprobs, top_logprobs: topLogprobs, text_offset: textOffset };
  }
}

/**
 * Token text → log-probability of the k likeliest and of the token itself. Two tokens may show the same text: the larger
 * number stays, so that the largest value is always the argmax's.
 */
function topMap(detail: TokenDetail): Record<string, number> {
  // Entries first: as a plain object's key, `__proto__` would be lost.
  const entries = new Map<string, number>();
  for (const { text, logprob } of [...detail.top, detail]) {
    const known = entries.get(text);
    if (known === undefined || finite(logprob) > known) entries.set(text, finite(logprob));
  }
  return Object.fromEntries(entries);
}

/** A token may be part of a character: count the bytes that begin one. */
function numCharactersStarted(bytes: Uint8Array): number {
  let count = 0;
  for (const byte of bytes) if ((byte & 0xc0) !== 0x80) count++;
  return count;
}

export interface ChatTokenLogprob {
  readonly token: string;
  readonly logprob: number;
  readonly bytes: number[];
}

export interface ChatLogprobs {
  readonly content: (ChatTokenLogprob & { readonly top_logprobs: ChatTokenLogprob[] })[];
  readonly refusal: null;
}

export function chatLogprobs(details: readonly TokenDetail[]): ChatLogprobs {
  return { content: tokenLogprobs(details), refusal: null };
}

export function tokenLogprobs(details: readonly TokenDetail[]): ChatLogprobs["content"] {
  return details.map((detail) => ({ ...chatEntry(detail), top_logprobs: detail.top.map(chatEntry) }));
}

function chatEntry(entry: TextLogprob): ChatTokenLogprob {
  return { token: entry.text, logprob: finite(entry.logprob), bytes: [...entry.bytes] };
}

export interface PromptLogprob {
  readonly logprob: number;
  /** From 1; absent for a token that isn't among the likeliest asked for. */
  readonly rank?: number;
  readonly decoded_token: string;
}

/** vLLM's shape: per prompt token, token id → entry; null for the first. */
export function promptLogprobs(
  details: readonly (TokenDetail | null)[],
): (Readonly<Record<string, PromptLogprob>> | null)[] {
  return details.map((detail) => {
    if (detail === null) return null;
    const entries: Record<string, PromptLogprob> = {
      [detail.tokenId]: { logprob: finite(detail.logprob), decoded_token: detail.text },
    };
    for (const [index, top] of detail.top.entries()) {
      entries[top.tokenId] = { logprob: finite(top.logprob), rank: index + 1, decoded_token: top.text };
    }
    return entries;
  });
}
