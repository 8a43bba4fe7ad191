/** Decode steps of a runner on the simulated device, and what can be told of their effect. */
import { expect } from "vitest";
import { tensorBytes } from "../../src/model/state.ts";
import type { NativeRunner } from "../../src/runtime/native/native-runner.ts";
import type { RunInput, RunOutput } from "../../src/runtime/runner.ts";

/** One step of the slots from 0 on, with a row of logits for each. */
export function step(runner: NativeRunner, numSequences: number, more: Partial<RunInput> = {}): Promise<RunOutput> {
  const of = <T>(value: T) => Array.from({ length: numSequences }, () => value);
  const input: RunInput = {
    firstSlot: 0,
    lengths: of(1),
    tokenIds: of(5),
    logitRows: of(0).map((_, row) => row),
    temperatures: of(1),
    ...more,
  };
  return runner.run(input);
}

/**
 * What a step does to the first layer's state that does not depend on what ONNX Runtime computes:
 * the window of a convolution, or of a token shift, moves by one place; the difference of two
 * matrices shrinks by each head's decay.
 */
export async function expectOneStep(runner: NativeRunner, name: string, seed: number): Promise<void> {
  const after = async (value: (i: number) => number) => {
    for (const slot of [0, 1]) await runner.writeSlot(slot, withTensor(runner, name, value));
    const before = tensorOf(runner, name, await runner.readSlot(0));
    await step(runner, 2);
    return { before, now: tensorOf(runner, name, await runner.readSlot(0)) };
  };
  const { shape } = runner.manifest.state.find((tensor) => tensor.name === name)!;
  const first = await after((i) => seed + i / 1000);
  if (!name.startsWith("kv")) {
    const width = shape[1]!;
    expect(first.now.subarray(0, -width)).toEqual(first.before.subarray(width));
    expect(first.now.subarray(-width)).not.toEqual(first.before.subarray(-width));
    return;
  }
  const second = await after((i) => seed + (i % 7));
  const perHead = shape[1]! * shape[2]!;
  for (let head = 0; head < shape[0]!; head++) {
    const ratios = [1, 8, perHead - 1].map((i) => {
      const at = head * perHead + i;
      return (second.now[at]! - first.now[at]!) / (second.before[at]! - first.before[at]!);
    });
    for (const ratio of ratios) expect(ratio).toBeCloseTo(1 - 2 ** (-5 - head), 4);
  }
}

/** Of one slot's state, the tensor's place, as f32. */
function placeOf(runner: NativeRunner, name: string): readonly [start: number, numBytes: number] {
  let start = 0;
  for (const tensor of runner.manifest.state) {
    if (tensor.name === name) return [start, tensorBytes(tensor)];
    start += tensorBytes(tensor);
  }
  throw new Error(`there is no state ${name}`);
}

function tensorOf(runner: NativeRunner, name: string, state: Uint8Array): Float32Array {
  const [start, numBytes] = placeOf(runner, name);
  return new Float32Array(state.slice(start, start + numBytes).buffer);
}

/** A state of zeros but for this tensor. */
function withTensor(runner: NativeRunner, name: string, value: (i: number) => number): Uint8Array {
  const [start, numBytes] = placeOf(runner, name);
  const state = new Uint8Array(runner.manifest.state.reduce((sum, tensor) => sum + tensorBytes(tensor), 0));
  state.set(new Uint8Array(Float32Array.from({ length: numBytes / 4 }, (_, i) => value(i)).buffer), start);
  return state;
}
