/**
 * The random numbers of sampling: sfc32, seeded with splitmix32. Small, fast, and the same on every
 * platform, so that a request with a seed gives the same text everywhere and in every batch.
 */
export class SeededRandom {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  /** @param seed any integer, or finite number; its integer part modulo 2^64 counts. */
  constructor(seed: number | bigint) {
    const { low, high } = wordsOf(seed);
    this.#a = mix(low);
    this.#b = mix(high ^ 0x5bd1e995);
    this.#c = mix(this.#a ^ Math.imul(this.#b, 0x9e3779b1));
    for (let i = 0; i < 12; i++) this.#next32();
  }

  /** Uniform in [0, 1), 53 bits. */
  next(): number {
    const high = this.#next32() >>> 5;
    const low = this.#next32() >>> 6;
    return (high * 2 ** 26 + low) / 2 ** 53;
  }

  /** Has the effect of `numDraws` calls of `next`. */
  skip(numDraws: number): void {
    for (let i = 0; i < 2 * numDraws; i++) this.#next32();
  }

  #next32(): number {
    const result = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + result) | 0;
    return result;
  }
}

/** The 64 bits of a seed's integer part, in two's complement. */
export function wordsOf(seed: number | bigint): { readonly low: number; readonly high: number } {
  const bits = BigInt.asUintN(64, typeof seed === "bigint" ? seed : BigInt(Math.trunc(seed)));
  return { low: Number(bits & 0xffffffffn), high: Number(bits >> 32n) };
}

/** splitmix32's finaliser: every bit of the input reaches every bit of the output. */
function mix(value: number): number {
  let x = (value + 0x9e3779b9) | 0;
  x = Math.imul(x ^ (x >>> 16), 0x21f0aaad);
  x = Math.imul(x ^ (x >>> 15), 0x735a2d97);
  return x ^ (x >>> 15);
}
