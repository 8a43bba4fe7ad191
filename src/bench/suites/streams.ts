/**
 * One stream, 32 and 64: straight from the engine, and over SSE from a server in another process.
 * In turns.
 */
import { type SuiteContext, serveFlags, withEngine } from "../config.ts";
import { atLeast, type Figure, median } from "../figures.ts";
import { runTogether } from "../load/load.ts";
import { randomPrompt } from "../random-model.ts";
import { inTurns, ratios } from "../rounds.ts";
import { ServerProcess } from "../server-process.ts";
import { rateTogether, runStream, streamRequest } from "../streams.ts";

const MANY = 64;
/** A batch that most servers run. */
const HALF = MANY / 2;
const PROMPT_TOKENS = 8;
/** Much longer than what a server holds back to write at once (`--stream-gap-ms`). */
const OUTPUT_TOKENS = 1000;
const TIMEOUT_MS = 60_000;

export async function benchStreams(context: SuiteContext): Promise<Figure[]> {
  const server = await ServerProcess.startOwn([
    ...["--model", context.modelDir, "--max-batch", `${MANY}`],
    ...serveFlags(context),
  ]);
  try {
    const rates = await withEngine({ ...context, maxBatch: MANY }, context.modelDir, (engine) => {
      const fromEngine = async (numStreams: number) => {
        const streams = Array.from({ length: numStreams }, async (_, i) => {
          const { tokenAtMs } = await runStream(engine, streamRequest(randomPrompt(PROMPT_TOKENS, i), OUTPUT_TOKENS));
          return { chunkAtMs: tokenAtMs, numTokens: tokenAtMs.length };
        });
        return rateTogether(await Promise.all(streams));
      };
      const overSse = async (numStreams: number) => {
        const load = { promptTokens: PROMPT_TOKENS, outputTokens: OUTPUT_TOKENS, seed: 1, timeoutMs: TIMEOUT_MS };
        return rateTogether(await runTogether(server, { ...load, numStreams }));
      };
      const measurements = {
        engineOne: () => fromEngine(1),
        sseOne: () => overSse(1),
        engineHalf: () => fromEngine(HALF),
        engineMany: () => fromEngine(MANY),
        sseMany: () => overSse(MANY),
      };
      return inTurns(measurements, { numRounds: 7 });
    });
    const { engineOne, engineHalf, engineMany, sseOne, sseMany } = rates;
    const rate = (name: string, samples: readonly number[]) => ({ name, value: median(samples), unit: "tokens/s" });
    const ratio = (name: string, a: readonly number[], b: readonly number[]) => ({
      name,
      value: median(ratios(a, b)),
      unit: "x",
    });
    return [
      { ...rate("engine, 1 stream", engineOne), ...atLeast(4000) },
      rate(`engine, ${HALF} streams together`, engineHalf),
      { ...ratio(`${HALF} streams / 1 stream`, engineHalf, engineOne), ...atLeast(3) },
      rate(`engine, ${MANY} streams together`, engineMany),
      ratio(`${MANY} streams / 1 stream`, engineMany, engineOne),
      rate("over SSE, 1 stream, as the client counts", sseOne),
      { ...ratio("SSE / engine, 1 stream", sseOne, engineOne), ...atLeast(0.9) },
      rate(`over SSE, ${MANY} streams together`, sseMany),
      { ...ratio(`SSE / engine, ${MANY} streams`, sseMany, engineMany), ...atLeast(0.85) },
    ];
  } finally {
    await server.stop();
  }
}
