/** One session that goes on and on: its speed and the memory it takes must not depend on how long it is. */
import type { Engine } from "../../engine/engine.ts";
import { atLeast, type Figure } from "../report.ts";
import { measureLongSession } from "../streams.ts";

/** @param leastRatio of the last tenth's speed to the first's */
export async function benchSession(engine: Engine, numTokens: number, leastRatio: number): Promise<Figure[]> {
  const session = await measureLongSession(engine, numTokens);
  return [
    { name: `first tenth of ${numTokens} tokens`, value: session.firstRate, unit: "tokens/s" },
    { name: "last tenth", value: session.lastRate, unit: "tokens/s" },
    { name: "first tenth / fresh sequences beside it", value: session.firstRelative, unit: "x" },
    { name: "last tenth / fresh sequences beside it", value: session.lastRelative, unit: "x" },
    { name: "last / first", value: session.lastRelative / session.firstRelative, unit: "x", ...atLeast(leastRatio) },
    { name: "resident memory", value: session.bytesPerToken, unit: "bytes/token" },
  ];
}
