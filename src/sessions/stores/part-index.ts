/**
 * Parts of pasts in a store's index: each stays for as long as something names it, and leaves some time after that, or
 * when room is needed. Holds no bytes itself.
 */

/**
 * A part that nothing names any more stays for so long: a request may still be continuing from what named it, or about to
 * put what will.
 */
const GRACE_MS = 600_000;

export interface IndexedPart {
  readonly bytes: number;
  /** The part before it. */
  readonly pastKey: string | undefined;
}

interface Unnamed {
  readonly sinceMs: number;
  /** Else something is about to name it. */
  readonly wasNamed: boolean;
}

export class PartIndex<Part extends IndexedPart> {
  readonly #nowMs: () => number;
  readonly #parts = new Map<string, Part>();
  /** How many name a part, which need not be here. */
  readonly #numNaming = new Map<string, number>();
  /** The longest first. */
  readonly #unnamed = new Map<string, Unnamed>();

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  get(key: string): Part | undefined {
    return this.#parts.get(key);
  }

  set(key: string, part: Part): void {
    this.#parts.set(key, part);
    if (!this.#numNaming.has(key)) this.#unnamed.set(key, { sinceMs: this.#nowMs(), wasNamed: false });
  }

  delete(key: string): void {
    this.#parts.delete(key);
    this.#unnamed.delete(key);
  }

  /** The part, and all before it, stays until the returned function is called, once. */
  name(key: string | undefined): () => void {
    if (key === undefined) return () => undefined;
    this.#numNaming.set(key, (this.#numNaming.get(key) ?? 0) + 1);
    this.#unnamed.delete(key);
    return () => this.unname(key);
  }

  unname(key: string | undefined): void {
    if (key === undefined) return;
    const numLeft = this.#numNaming.get(key)! - 1;
    if (numLeft > 0) this.#numNaming.set(key, numLeft);
    else this.#numNaming.delete(key);
    if (numLeft === 0 && this.#parts.has(key)) this.#unnamed.set(key, { sinceMs: this.#nowMs(), wasNamed: true });
  }

  /** The first to evict: no longer named by anything. */
  firstUnnamed(): [string, Part] | undefined {
    for (const [key, { wasNamed }] of this.#unnamed) if (wasNamed) return [key, this.#parts.get(key)!];
    return undefined;
  }

  /** Of parts that something is about to name: they cannot leave. */
  get comingBytes(): number {
    let bytes = 0;
    for (const [key, { wasNamed }] of this.#unnamed) if (!wasNamed) bytes += this.#parts.get(key)!.bytes;
    return bytes;
  }

  /** A part that nothing has named for `graceMs`. */
  nextOutdated({ graceMs = GRACE_MS }: { readonly graceMs?: number } = {}): [string, Part] | undefined {
    for (const [key, { sinceMs }] of this.#unnamed) {
      return sinceMs <= this.#nowMs() - graceMs ? [key, this.#parts.get(key)!] : undefined;
    }
    return undefined;
  }

  /** The part, if nothing names it. */
  unnamed(key: string | undefined): [string, Part] | undefined {
    return key !== undefined && this.#unnamed.has(key) ? [key, this.#parts.get(key)!] : undefined;
  }

  clear(): void {
    for (const map of [this.#parts, this.#numNaming, this.#unnamed]) map.clear();
  }
}
