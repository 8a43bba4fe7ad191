/** Words that an answer must not have → sequences of tokens, as vLLM makes them. */
import type { Tokenizer } from "../tokenizer/tokenizer.ts";

/**
 * Each word as it stands, and behind a space if that makes another token of the same number.
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
    const [plain, spaced] = [await encode(bare), await encode(` ${bare}`)];
    sequences.push(plain);
    if (spaced.length === plain.length && spaced[0] !== plain[0]) sequences.push(spaced);
  }
  return sequences.filter((ids) => ids.length > 0);
}
