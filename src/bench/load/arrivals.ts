/**
 * When the requests of an open-loop run arrive: a Poisson process, drawn before the run, so that a slow server cannot
 * slow its own load down. The same seed gives the same arrivals to every server that is compared.
 */
import { SeededRandom } from "../../sampling/random.ts";

/** Milliseconds from the start of the run, ascending. @param perSecond mean rate, > 0 */
export function poissonArrivals(options: {
  readonly perSecond: number;
  readonly numRequests: number;
  readonly seed: number;
}): number[] {
  const random = new SeededRandom(options.seed);
  let atMs = 0;
  return Array.from({ length: options.numRequests }, () => {
    // Gaps of a Poisson process are exponential; 1 - next() is never 0.
    atMs += (-Math.log(1 - random.next()) / options.perSecond) * 1000;
    return atMs;
  });
}

/** Token ids that every vocabulary of the bench has, and no two prompts alike: nothing can be answered from a cache. */
export function randomPrompt(length: number, seed: number): number[] {
  const random = new SeededRandom(seed);
  return Array.from({ length }, () => FIRST_ID + Math.floor(random.next() * NUM_IDS));
}

/** Below are ids that tokenizers keep for themselves. */
const FIRST_ID = 3;
const NUM_IDS = 250;
