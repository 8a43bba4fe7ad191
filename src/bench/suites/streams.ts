/**
 * One stream, 32 and 64: straight from the engine, and over SSE from a server in another process. Taken in turns, and the
 * ratios formed within a round, since the machine's speed drifts.
 */
import type { Engine } from "../../engine/engine.ts";
import type { BenchContext } from "../context.ts";
import { runTogether, togetherRate } from "../load/open-loop.ts";
import { atLeast, type Figure, median } from "../report.ts";
import { serveFlags, withEngine } from "../rig.ts";
import { ServerProcess } from "../server-process.ts";
import { measureThroughput } from "../streams.ts";

const NUM_STREAMS = 64;
/** A batch that most servers run at. */
const HALF = NUM_STREAMS / 2;
const NUM_ROUNDS = 7;
/** Long beside what a server holds back to write at once (`--stream-gap-ms`): it is not counted at the end, and there is none at the start. */
const TOKENS_TOGETHER = 1000;
const TIMEOUT_MS = 60_000;

export async function benchStreams(context: BenchContext): Promise<Figure[]> {
  const flags = ["--model", context.modelDir, "--max-batch", `${NUM_STREAMS}`, ...serveFlags(context)];
  const server = await ServerProcess.startOwn(flags);
  try {
    const rounds = await withEngine({ ...context, maxBatch: NUM_STREAMS }, context.modelDir, async (engine) => {
      await measureThroughput(engine, 1, 500); // warm-up
      await sseRate(server, 1, 500);
      const measured: Round[] = [];
      for (let round = 0; round < NUM_ROUNDS; round++) measured.push(await measureRound(engine, server));
      return measured;
    });
    const of = (rate: (round: Round) => number) => median(rounds.map(rate));
    return [
      { name: "engine, 1 stream", value: of((r) => r.engineOne), unit: "tokens/s", ...atLeast(4000) },
      { name: `engine, ${HALF} streams together`, value: of((r) => r.engineHalf), unit: "tokens/s" },
      {
        name: `${HALF} streams / 1 stream`,
        value: of((r) => r.engineHalf / r.engineOne),
        unit: "x",
        ...atLeast(3),
      },
      { name: `engine, ${NUM_STREAMS} streams together`, value: of((r) => r.engineMany), unit: "tokens/s" },
      { name: `${NUM_STREAMS} streams / 1 stream`, value: of((r) => r.engineMany / r.engineOne), unit: "x" },
      { name: "over SSE, 1 stream, as the client counts", value: of((r) => r.sseOne), unit: "tokens/s" },
      { name: "SSE / engine, 1 stream", value: of((r) => r.sseOne / r.engineOne), unit: "x", ...atLeast(0.9) },
      { name: `over SSE, ${NUM_STREAMS} streams together`, value: of((r) => r.sseMany), unit: "tokens/s" },
      {
        name: `SSE / engine, ${NUM_STREAMS} streams`,
        value: of((r) => r.sseMany / r.engineMany),
        unit: "x",
        ...atLeast(0.85),
      },
    ];
  } finally {
    await server.stop();
  }
}

/** Tokens per second. */
interface Round {
  readonly engineOne: number;
  readonly engineHalf: number;
  readonly engineMany: number;
  readonly sseOne: number;
  readonly sseMany: number;
}

async function measureRound(engine: Engine, server: ServerProcess): Promise<Round> {
  return {
    engineOne: await measureThroughput(engine, 1, 1000),
    sseOne: await sseRate(server, 1, 1000),
    engineHalf: await measureThroughput(engine, HALF, TOKENS_TOGETHER),
    engineMany: await measureThroughput(engine, NUM_STREAMS, TOKENS_TOGETHER),
    sseMany: await sseRate(server, NUM_STREAMS, TOKENS_TOGETHER),
  };
}

async function sseRate({ baseUrl }: ServerProcess, numStreams: number, outputTokens: number): Promise<number> {
  const load = { numStreams, promptTokens: 8, outputTokens, seed: 1, timeoutMs: TIMEOUT_MS };
  return togetherRate(await runTogether({ baseUrl }, load));
}
