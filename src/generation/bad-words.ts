/** Words that an answer must not have → sequences of tokens. */
import type { Tokenizer } from "../tokenizer/tokenizer.ts";

/**
 * Each word as it stands, and after a space.
 * @throws as the tokenizer does
 */
export async function encodeBadWords(
  tokenizer: Pick<Tokenizer, "encode">,
  words: readonly string[],
  signal: AbortSignal,
): Promise<readonly (readonly number[])[]> {
  const encode = (text: string) => tokenizer.encode(text, { addSpecialTokens: false, signal });
  const sequences: number[][] = [];
  for (const word of words) {
    const bare = word.trimStart() || word;
    sequences.push(await encode(bare), await encode(` ${bare}`));
  }
  return sequences.filter((ids) => ids.length > 0);
}
