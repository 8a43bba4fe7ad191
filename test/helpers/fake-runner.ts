/**
 * A `ModelRunner` without a model: a sequence's state is a rolling hash of every token it has read,
 * and its logits come from that hash. Whoever mixes up slots, positions or states gets other
 * logits. Deterministic; watches its own contract.
 */
import { setImmediate as macrotask } from "node:timers/promises";
import { DenseMambaError } from "../../src/errors.ts";
import type { Manifest, Precision } from "../../src/model/artifact.ts";
import { stateBytes } from "../../src/model/state.ts";
import type { ModelRunner, RunInput, RunOutput } from "../../src/runtime/runner.ts";
import { logitRows } from "./logit-rows.ts";

const NUM_WORDS = 6;

export interface FakeRunnerOptions {
  readonly numSlots: number;
  readonly vocabSize?: number;
  /** What its manifest says, where only the memory for so many logits matters. */
  readonly claimedVocabSize?: number;
  /** Of its manifest. */
  readonly maxPassSteps?: number;
  /** Likewise. */
  readonly ragged?: boolean;
  /** Likewise. */
  readonly precision?: Precision;
  /** Awaited within every call. By default one turn of the event loop. */
  readonly pace?: (() => Promise<unknown>) | undefined;
  /**
   * Called before every call takes effect; throws to inject a fault, of which the state does not
   * recover.
   */
  readonly onCall?: ((call: FakeCall) => void) | undefined;
  /** A sequence that reads this token gets NaN logits. */
  readonly poisonToken?: number;
}

export type FakeCall =
  | { readonly type: "run"; readonly input: RunInput }
  | { readonly type: "clear" | "read" | "write"; readonly slot: number }
  | { readonly type: "copy" | "swap"; readonly from: number; readonly to: number };

export function fakeManifest(vocabSize: number): Manifest {
  return {
    formatVersion: 1,
    compilerVersion: "0.0.0",
    modelHash: `fake-${vocabSize}`,
    name: "fake",
    family: "dense_mamba",
    precision: "f32",
    sizes: { vocabSize, hiddenSize: 4, numLayers: 1, denseLayers: 0 },
    numParameters: 0,
    bosTokenId: null,
    eosTokenIds: [0],
    state: [
      { name: "ssm.0", shape: [2, 2] },
      { name: "conv.0", shape: [2] },
    ],
    graph: "none",
    files: [],
  };
}

/** A state: six 32-bit words, all zero at position 0. */
export function fakeState(): Uint32Array {
  return new Uint32Array(NUM_WORDS);
}

export function readToken(state: Uint32Array, tokenId: number): void {
  // Without the highest bit of the exponent they are finite numbers, as a state's are.
  for (let i = 0; i < NUM_WORDS; i++) {
    state[i] = mix(state[i]! ^ Math.imul(tokenId + 1, 0x9e3779b1 + 2 * i)) & 0xbfffffff;
  }
}

export function fakeLogits(state: Uint32Array, vocabSize: number): Float32Array {
  const seed = state.reduce((a, b) => mix(a ^ b), 0);
  return Float32Array.from({ length: vocabSize }, (_, id) => (mix(seed ^ Math.imul(id + 1, 0x85ebca6b)) / 2 ** 32) * 8);
}

/** As long as `fakeManifest` says. */
export function fakeHidden(state: Uint32Array): Float32Array {
  return Float32Array.from(state.subarray(0, 4), (word) => word / 2 ** 32);
}

function mix(value: number): number {
  let x = value | 0;
  x = Math.imul(x ^ (x >>> 16), 0x21f0aaad);
  x = Math.imul(x ^ (x >>> 15), 0x735a2d97);
  return (x ^ (x >>> 15)) >>> 0;
}

export class FakeRunner implements ModelRunner {
  readonly manifest: Manifest;
  readonly numSlots: number;
  readonly description = "fake";
  /**
   * Breaches of the contract by the caller: overlapping calls, calls after a fault or after
   * `close`, wrong slots.
   */
  readonly breaches: string[] = [];
  readonly calls: FakeCall[] = [];
  isClosed = false;
  readonly #options: FakeRunnerOptions;
  readonly #states: Uint32Array[];
  #last: RunOutput | undefined;
  #isBusy = false;
  #isBroken = false;

  constructor(options: FakeRunnerOptions) {
    this.#options = options;
    this.numSlots = options.numSlots;
    const { vocabSize = 29, claimedVocabSize = vocabSize, maxPassSteps, ragged, precision = "f32" } = options;
    this.manifest = { ...fakeManifest(claimedVocabSize), maxPassSteps, ragged, precision };
    // A slot nobody cleared holds somebody's past.
    this.#states = Array.from({ length: options.numSlots }, (_, slot) => fakeState().fill(0xdead0000 + slot));
  }

  run(input: RunInput): Promise<RunOutput> {
    const { vocabSize = 29 } = this.#options;
    const { firstSlot, lengths } = input;
    const kept = {
      ...input,
      lengths: Array.from(lengths),
      tokenIds: Array.from(input.tokenIds),
      wholeRows: Array.from(input.wholeRows ?? []),
    }; // the caller's, reused
    return this.#call({ type: "run", input: kept }, firstSlot, firstSlot + lengths.length - 1, () => {
      const slots = Array.from(lengths).flatMap((length, i) => new Array<number>(length).fill(firstSlot + i));
      if (input.tokenIds.length !== slots.length || slots.length === 0) this.breaches.push("wrong number of tokens");
      const areEqual = Array.from(lengths).every((length) => length === lengths[0]);
      if (!areEqual && !this.manifest.ragged) this.breaches.push("lengths are unequal");
      if (slots.length > (this.manifest.maxPassSteps ?? Number.POSITIVE_INFINITY))
        this.breaches.push("a pass too long");
      const hidden: Float32Array[] = [];
      const all = Array.from(input.tokenIds).map((tokenId, index) => {
        const state = this.#states[slots[index]!]!;
        if (!(tokenId >= 0 && tokenId < vocabSize)) this.breaches.push(`token ${tokenId}`);
        readToken(state, tokenId);
        hidden.push(fakeHidden(state));
        return tokenId === this.#options.poisonToken
          ? new Float32Array(vocabSize).fill(Number.NaN)
          : fakeLogits(state, vocabSize);
      });
      const rows = Array.from(input.logitRows).map((row) => all[row]!);
      const wanted = input.wantsHidden ? Array.from(input.logitRows).map((row) => hidden[row]!) : undefined;
      this.#last = logitRows(rows, input.temperatures, wanted);
      return this.#last;
    });
  }

  clearSlot(slot: number): Promise<void> {
    return this.#call({ type: "clear", slot }, slot, slot, () => void this.#states[slot]!.fill(0));
  }

  copySlot(from: number, to: number): Promise<void> {
    return this.#call({ type: "copy", from, to }, from, to, () => this.#states[to]!.set(this.#states[from]!));
  }

  swapSlots(a: number, b: number): Promise<void> {
    return this.#call({ type: "swap", from: a, to: b }, a, b, () => {
      [this.#states[a], this.#states[b]] = [this.#states[b]!, this.#states[a]!];
    });
  }

  readSlot(slot: number): Promise<Uint8Array> {
    return this.#call({ type: "read", slot }, slot, slot, () => new Uint8Array(this.#states[slot]!.slice().buffer));
  }

  writeSlot(slot: number, state: Uint8Array): Promise<void> {
    return this.#call({ type: "write", slot }, slot, slot, () => {
      const expected = stateBytes(this.manifest.state);
      if (state.length !== expected) throw new DenseMambaError("invalid_snapshot", `${state.length} bytes`);
      this.#states[slot]!.set(new Uint32Array(state.slice().buffer));
    });
  }

  async close(): Promise<void> {
    if (this.#isBusy) this.breaches.push("closed during a call");
    this.isClosed = true;
  }

  async #call<T>(call: FakeCall, a: number, b: number, effect: () => T): Promise<T> {
    this.calls.push(call);
    if (this.#isBusy) this.breaches.push(`${call.type} while another call runs`);
    if (this.#isBroken) this.breaches.push(`${call.type} after a fault`);
    if (this.isClosed) this.breaches.push(`${call.type} after close`);
    if (![a, b].every((slot) => slot >= 0 && slot < this.numSlots))
      this.breaches.push(`${call.type} of slot ${a} or ${b}`);
    // The last output is the caller's until now.
    for (let row = 0; row < (this.#last?.numRows ?? 0); row++) this.#last!.logitsOf(row).fill(Number.NaN);
    this.#last?.topLogits.fill(Number.NaN);
    this.#isBusy = true;
    try {
      await (this.#options.pace ?? macrotask)();
      this.#options.onCall?.(call);
      return effect();
    } catch (fault) {
      this.#isBroken = true;
      throw fault;
    } finally {
      this.#isBusy = false;
    }
  }
}
