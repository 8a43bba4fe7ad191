/**
 * Draws from all logits of a row without sorting it: weights are summed in buckets of nearly equal
 * logits, and only the buckets that contain a boundary (of top-k, top-p or the draw) are ranked.
 * Same answer as `candidates.ts`.
 */
import { type DrawParams, MIN_EXPONENT, type RowMass, weightOf } from "./weights.ts";

const BUCKETS_PER_NAT = 32;
const NUM_BUCKETS = Math.ceil(-MIN_EXPONENT * BUCKETS_PER_NAT) + 1;
/** In `bucketOf`: a token that is never drawn. */
const NO_BUCKET = 0xffff;

/**
 * A row's weights by bucket; bucket 0 holds the likeliest tokens. Reused from row to row: allocates
 * only when V grows.
 */
export class RowRanking {
  readonly #masses = new Float64Array(NUM_BUCKETS);
  readonly #counts = new Int32Array(NUM_BUCKETS);
  #bucketOf = new Uint16Array(0);
  #logits: Float32Array = new Float32Array(0);
  #max = 0;
  #inverseTemperature = 1;
  /** Sum of all weights. */
  mass = 0;
  /** How many tokens have one. */
  count = 0;

  /**
   * @param logits [V] one row; referenced until the next call. No NaN, no +Infinity; -Infinity is
   * never drawn
   * @param max the largest of them, finite
   */
  load(logits: Float32Array, max: number, temperature: number, minP: number): void {
    if (this.#bucketOf.length < logits.length) this.#bucketOf = new Uint16Array(logits.length);
    this.#logits = logits;
    this.#max = max;
    this.#inverseTemperature = 1 / temperature;
    this.#masses.fill(0);
    this.#counts.fill(0);
    const [masses, counts, bucketOf] = [this.#masses, this.#counts, this.#bucketOf];
    const inverseTemperature = this.#inverseTemperature;
    const minExponent = Math.max(MIN_EXPONENT, Math.log(minP));
    let mass = 0;
    let count = 0;
    for (let id = 0; id < logits.length; id++) {
      const exponent = (logits[id]! - max) * inverseTemperature;
      if (exponent < minExponent) {
        bucketOf[id] = NO_BUCKET;
        continue;
      }
      const weight = weightOf(exponent);
      const bucket = (-exponent * BUCKETS_PER_NAT) | 0;
      bucketOf[id] = bucket;
      masses[bucket] = masses[bucket]! + weight;
      counts[bucket] = counts[bucket]! + 1;
      mass += weight;
      count++;
    }
    this.mass = mass;
    this.count = count;
  }

  /** Mass of the k likeliest tokens. */
  massOfFirst(k: number): number {
    if (k >= this.count) return this.mass;
    let mass = 0;
    let remaining = k;
    for (let bucket = 0; remaining > 0; bucket++) {
      const count = this.#counts[bucket]!;
      if (count <= remaining) {
        mass += this.#masses[bucket]!;
        remaining -= count;
        continue;
      }
      for (const id of this.#ranked(bucket).slice(0, remaining)) mass += this.#weight(id);
      remaining = 0;
    }
    return mass;
  }

  /** Mass of the shortest prefix that weighs at least `goal`: all of it if none does. */
  massReaching(goal: number): number {
    let mass = 0;
    for (let bucket = 0; bucket < NUM_BUCKETS; bucket++) {
      if (mass + this.#masses[bucket]! < goal) {
        mass += this.#masses[bucket]!;
        continue;
      }
      for (const id of this.#ranked(bucket)) {
        mass += this.#weight(id);
        if (mass >= goal) return mass;
      }
    }
    return this.mass;
  }

  /** The first token whose cumulative mass exceeds `target`, 0 ≤ target < mass. */
  tokenAt(target: number): number {
    let mass = 0;
    for (let bucket = 0; bucket < NUM_BUCKETS; bucket++) {
      if (mass + this.#masses[bucket]! <= target) {
        mass += this.#masses[bucket]!;
        continue;
      }
      for (const id of this.#ranked(bucket)) {
        mass += this.#weight(id);
        if (mass > target) return id;
      }
    }
    throw new RangeError(`target ${target} is not below the row's mass ${this.mass}`);
  }

  #weight(id: number): number {
    return weightOf((this.#logits[id]! - this.#max) * this.#inverseTemperature);
  }

  #ranked(bucket: number): number[] {
    const [logits, bucketOf] = [this.#logits, this.#bucketOf];
    const ids: number[] = [];
    for (let id = 0; id < logits.length; id++) if (bucketOf[id] === bucket) ids.push(id);
    return ids.sort((a, b) => logits[b]! - logits[a]! || a - b);
  }
}

/**
 * @param mass from the graph, if the candidates were tried first. Default: the row's own sum
 * @param u uniform in [0, 1)
 */
export function drawFromFullRow(
  ranking: RowRanking,
  logits: Float32Array,
  max: number,
  params: DrawParams,
  u: number,
  mass?: RowMass,
): number {
  ranking.load(logits, max, params.temperature, params.minP);
  const isFiltered = params.topK > 0 || params.minP > 0;
  const kept = params.topK > 0 ? ranking.massOfFirst(params.topK) : ranking.mass;
  if (params.topP < 1) {
    const whole = isFiltered ? kept : (mass?.nucleus ?? ranking.mass);
    return ranking.tokenAt(u * Math.min(kept, ranking.massReaching(params.topP * whole)));
  }
  if (isFiltered || mass === undefined) return ranking.tokenAt(u * kept);
  const target = u * mass.bound;
  if (target < ranking.mass) return ranking.tokenAt(target);
  const fraction = (target - ranking.mass) / (mass.bound - ranking.mass);
  return ranking.tokenAt(Math.min(fraction * ranking.mass, ranking.mass - 1));
}
