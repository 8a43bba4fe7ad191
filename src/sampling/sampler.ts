/**
 * Chooses the tokens of one sequence: has its random numbers and penalties, and picks the draw that
 * a row needs. The choice depends only on the row, the parameters, the seed and the sequence's own
 * past, never on its neighbours.
 */

import { DenseMambaError } from "../errors.ts";
import { NUM_CANDIDATES } from "../model/artifact.ts";
import type { LogitRows } from "../model/logits.ts";
import { drawFromCandidates } from "./candidates.ts";
import { drawFromFullRow, RowRanking } from "./full-row.ts";
import { LogitsProcessor, type ProcessorOptions } from "./logits-processor.ts";
import type { SamplingParams } from "./params.ts";
import { SeededRandom } from "./random.ts";
import { checkFinite, numCandidatesOf } from "./rows.ts";
import { applyMask, type TokenMask } from "./token-matcher.ts";

/** Lower temperatures mean greedy, as in vLLM: logits divided by them would overflow f32. */
const MIN_TEMPERATURE = 1e-5;

/** The temperature that the graph divides by: > 0. */
export function graphTemperature(params: SamplingParams): number {
  return isGreedy(params) ? 1 : params.temperature;
}

function isGreedy(params: SamplingParams): boolean {
  return params.temperature < MIN_TEMPERATURE;
}

/** Working memory for one row at a time, shared by any number of samplers. */
export class SamplingScratch {
  readonly cumulative = new Float64Array(NUM_CANDIDATES);
  readonly ranking = new RowRanking();
  #row = new Float32Array(0);

  /** A copy of the row that may be changed; valid until the next call. */
  copyOf(row: Float32Array): Float32Array {
    if (this.#row.length !== row.length) this.#row = new Float32Array(row.length);
    this.#row.set(row);
    return this.#row;
  }
}

export interface SamplerOptions extends ProcessorOptions {
  readonly seed: number | bigint;
  /** How many of the seed's random numbers are used up. Default: none. */
  readonly numDraws?: number;
  readonly scratch: SamplingScratch;
  /** Ids from here on are never drawn: padding of the model's vocabulary. Default: all may be. */
  readonly vocabSize?: number;
}

export class Sampler {
  readonly #params: SamplingParams;
  readonly #processor: LogitsProcessor;
  readonly #random: SeededRandom;
  readonly #seed: number | bigint;
  #numDraws: number;
  readonly #scratch: SamplingScratch;
  readonly #vocabSize: number;

  constructor(options: SamplerOptions) {
    this.#params = options.params;
    this.#processor = new LogitsProcessor(options);
    this.#seed = options.seed;
    this.#numDraws = options.numDraws ?? 0;
    this.#random = new SeededRandom(options.seed);
    this.#random.skip(this.#numDraws);
    this.#scratch = options.scratch;
    this.#vocabSize = options.vocabSize ?? Number.POSITIVE_INFINITY;
  }

  /**
   * Chooses the next token from one row, and remembers it. Uses one random number per token,
   * whichever way it is drawn.
   * @param mask the tokens to choose from. Default: all
   * @throws `runtime_fault` if the row has NaN or +Infinity; `invalid_value` if masks leave no
   * token
   */
  sample(rows: LogitRows, row: number, mask?: TokenMask): number {
    checkFinite(rows, row);
    const isChanged = mask !== undefined || this.#processor.isActive || this.#hasPaddingAhead(rows, row);
    const tokenId = isChanged ? this.#chooseAdjusted(rows, row, mask) : this.#choose(rows, row);
    this.#processor.record(tokenId);
    return tokenId;
  }

  /** Remembers a token that was not sampled since no other could come, as if it had been. */
  force(tokenId: number): void {
    if (!isGreedy(this.#params)) this.#draw();
    this.#processor.record(tokenId);
  }

  /**
   * Whether all logits of the next row will be read for certain, and not only if the candidates
   * cannot decide.
   */
  get readsWholeRow(): boolean {
    return this.#processor.isActive;
  }

  /** Another sampler continues the random numbers from here. */
  get state(): { readonly seed: number | bigint; readonly numDraws: number } {
    return { seed: this.#seed, numDraws: this.#numDraws };
  }

  #draw(): number {
    this.#numDraws++;
    return this.#random.next();
  }

  #choose(rows: LogitRows, row: number): number {
    const params = this.#params;
    if (isGreedy(params)) return likeliest(rows, row);
    const u = this.#draw();
    const draw = drawFromCandidates(rows, row, params, u, this.#scratch.cumulative);
    if (draw.type === "token") return draw.tokenId;
    const max = rows.topLogits[row * numCandidatesOf(rows)]!;
    return drawFromFullRow(this.#scratch.ranking, this.#realLogits(rows, row), max, params, u, draw.mass);
  }

  /**
   * Padding was never trained, so it is rarely among the candidates. Only then is the whole row
   * read.
   */
  #hasPaddingAhead(rows: LogitRows, row: number): boolean {
    if (this.#vocabSize >= rows.vocabSize) return false;
    const numCandidates = numCandidatesOf(rows);
    const ids = rows.topIds.subarray(row * numCandidates, (row + 1) * numCandidates);
    return ids.some((id) => id >= this.#vocabSize);
  }

  #realLogits(rows: LogitRows, row: number): Float32Array {
    if (this.#vocabSize >= rows.vocabSize) return rows.logitsOf(row);
    return this.#scratch.copyOf(rows.logitsOf(row)).fill(Number.NEGATIVE_INFINITY, this.#vocabSize);
  }

  #chooseAdjusted(rows: LogitRows, row: number, mask: TokenMask | undefined): number {
    const params = this.#params;
    const logits = this.#scratch.copyOf(rows.logitsOf(row));
    this.#processor.process(logits);
    if (mask !== undefined) applyMask(logits, mask);
    if (this.#vocabSize < logits.length) logits.fill(Number.NEGATIVE_INFINITY, this.#vocabSize);
    const best = argmax(logits);
    const max = logits[best]!;
    if (max === Number.NEGATIVE_INFINITY) {
      const masks = "min_tokens, logit_bias, allowed_token_ids, bad_words or the constraint on the answer";
      throw new DenseMambaError("invalid_value", `no token is left to choose: ${masks} mask them all`);
    }
    if (isGreedy(params)) return best;
    return drawFromFullRow(this.#scratch.ranking, logits, max, params, this.#draw());
  }
}

/**
 * The candidate with the largest logit, of equal ones the lowest id: devices may return them in any
 * order.
 */
function likeliest(rows: LogitRows, row: number): number {
  const numCandidates = numCandidatesOf(rows);
  const first = row * numCandidates;
  let best = rows.topIds[first]!;
  for (let i = 1; i < numCandidates && rows.topLogits[first + i] === rows.topLogits[first]; i++) {
    if (rows.topIds[first + i]! < best) best = rows.topIds[first + i]!;
  }
  return Number(best);
}

function argmax(logits: Float32Array): number {
  let best = 0;
  let max = logits[0]!;
  for (let id = 1; id < logits.length; id++) {
    if (logits[id]! > max) {
      max = logits[id]!;
      best = id;
    }
  }
  return best;
}
