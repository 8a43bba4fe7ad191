import type { ModelRunner } from "../../src/runtime/runner.ts";

/** One pass of slots 0 to B-1, each with tokens of its own. @returns [B][T][V] logits */
export async function readPass(runner: ModelRunner, tokens: readonly (readonly number[])[]): Promise<Float32Array[][]> {
  const tokenIds = tokens.flat();
  const { logitsOf } = await runner.run({
    firstSlot: 0,
    lengths: tokens.map(({ length }) => length),
    tokenIds,
    logitRows: tokenIds.map((_, row) => row),
    temperatures: tokenIds.map(() => 1),
    wholeRows: tokenIds.map((_, row) => row),
  });
  let row = 0;
  return tokens.map((ids) => ids.map(() => logitsOf(row++).slice()));
}

/** The same in passes of the given lengths, all sequences in step. */
export async function readPasses(
  runner: ModelRunner,
  tokens: readonly (readonly number[])[],
  lengths: readonly number[],
): Promise<Float32Array[][]> {
  const logits: Float32Array[][] = tokens.map(() => []);
  let start = 0;
  for (const length of lengths) {
    const pass = await readPass(
      runner,
      tokens.map((ids) => ids.slice(start, start + length)),
    );
    for (const [b, rows] of pass.entries()) logits[b]!.push(...rows);
    start += length;
  }
  return logits;
}
