import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Scheduler } from "../../src/engine/scheduler.ts";
import { type SlotMove, SlotTable } from "../../src/engine/slots.ts";

const limits = { maxBatch: 3, prefillChunk: 8 };

function waiting(name: string, numUnread: number, maxChunk = 1000) {
  return { name, slot: -1, numUnread, maxChunk };
}

/** Runs the plan's prefill and names what it was. */
function prefillOnce(scheduler: Scheduler<ReturnType<typeof waiting>>): string {
  const { prefill } = scheduler.plan();
  if (prefill === undefined) return "-";
  prefill.sequence.numUnread -= prefill.numTokens;
  if (prefill.sequence.numUnread === 0) scheduler.promote(prefill.sequence);
  return `${prefill.sequence.name}${prefill.numTokens}`;
}

describe("scheduler", () => {
  test("admits first come, first served, while slots are free", () => {
    const scheduler = new Scheduler<ReturnType<typeof waiting>>(limits);
    for (const name of ["a", "b", "c", "d"]) scheduler.enqueue(waiting(name, 1));
    const admitted = [1, 2, 3, 4].map(() => scheduler.admit()?.name);
    expect(admitted).toEqual(["a", "b", "c", undefined]);
    expect(scheduler.waiting.map(({ name }) => name)).toEqual(["d"]);
  });

  test("prompts take turns, so that a short one is not stuck behind a long one", () => {
    const scheduler = new Scheduler<ReturnType<typeof waiting>>(limits);
    scheduler.enqueue(waiting("long", 100));
    scheduler.enqueue(waiting("short", 10));
    scheduler.admit();
    scheduler.admit();
    const order = Array.from({ length: 5 }, () => prefillOnce(scheduler));
    expect(order).toEqual(["long8", "short8", "long8", "short2", "long8"]);
  });

  test("chunks are smaller beside sequences that decode, if they are to keep their pace", () => {
    const scheduler = new Scheduler<ReturnType<typeof waiting>>(limits);
    scheduler.enqueue(waiting("a", 100));
    scheduler.enqueue(waiting("b", 1));
    scheduler.admit();
    scheduler.admit();
    expect(scheduler.plan(3).prefill?.numTokens).toBe(8);
    expect(scheduler.plan(3).prefill?.numTokens).toBe(1);
    scheduler.promote(scheduler.slots.seated[1]!);
    expect(scheduler.plan(3).prefill?.numTokens).toBe(3);
    expect(scheduler.plan(3).numDecoding).toBe(1);
  });

  test("a sequence's own limit bounds its chunks", () => {
    const scheduler = new Scheduler<ReturnType<typeof waiting>>(limits);
    scheduler.enqueue(waiting("a", 100, 5));
    scheduler.admit();
    expect(prefillOnce(scheduler)).toBe("a5");
  });

  test("decoding sequences all decode, beside one chunk", () => {
    const scheduler = new Scheduler<ReturnType<typeof waiting>>(limits);
    for (const name of ["a", "b", "c"]) scheduler.enqueue(waiting(name, 3));
    for (let i = 0; i < 3; i++) scheduler.admit();
    prefillOnce(scheduler);
    prefillOnce(scheduler);
    const plan = scheduler.plan();
    expect(plan.numDecoding).toBe(2);
    expect(plan.prefill?.sequence.name).toBe("c");
  });

  test("a sequence leaves the queue or its slot, and then nothing is left of it", () => {
    const scheduler = new Scheduler<ReturnType<typeof waiting>>({ ...limits, maxBatch: 1 });
    const [a, b] = [waiting("a", 3), waiting("b", 3)];
    scheduler.enqueue(a);
    scheduler.enqueue(b);
    scheduler.admit();
    scheduler.remove(b);
    scheduler.remove(a);
    expect(scheduler.isIdle).toBe(true);
    expect(scheduler.plan()).toEqual({ numDecoding: 0, prefill: undefined });
  });
});

describe("slots", () => {
  test("whoever joins, begins to decode or leaves, each sequence's state is in its slot and decoding ones come first", () => {
    const command = fc.record({ type: fc.constantFrom("add", "add", "promote", "remove"), pick: fc.nat() });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 6 }), fc.array(command, { maxLength: 60 }), (numSlots, commands) => {
        const table = new SlotTable<{ slot: number; name: number }>(numSlots);
        const states = new Array<number>(numSlots).fill(-1);
        const prefilling = new Set<object>();
        const make = (moves: SlotMove[]) => {
          for (const move of moves) {
            if (move.type === "copy") states[move.to] = states[move.from]!;
            else [states[move.a], states[move.b]] = [states[move.b]!, states[move.a]!];
          }
        };
        commands.forEach(({ type, pick }, name) => {
          const seated = [...table.seated];
          const some = seated[pick % Math.max(seated.length, 1)];
          if (type === "add" && table.numUsed < numSlots) {
            const sequence = { slot: -1, name };
            table.add(sequence);
            states[sequence.slot] = name;
            prefilling.add(sequence);
          } else if (type === "promote" && some !== undefined && prefilling.delete(some)) {
            make(table.promote(some));
          } else if (type === "remove" && some !== undefined) {
            prefilling.delete(some);
            make(table.remove(some));
            expect(some.slot).toBe(-1);
          }
          table.check();
          for (const [slot, sequence] of table.seated.entries()) {
            expect(states[slot]).toBe(sequence.name);
            expect(prefilling.has(sequence)).toBe(slot >= table.numDecoding);
          }
        });
      }),
    );
  });

  test("a decoding sequence that leaves costs at most two copies", () => {
    const table = new SlotTable<{ slot: number }>(4);
    const sequences = [0, 1, 2, 3].map(() => ({ slot: -1 }));
    for (const sequence of sequences) table.add(sequence);
    table.promote(sequences[0]!);
    table.promote(sequences[1]!);
    expect(table.remove(sequences[0]!)).toEqual([
      { type: "copy", from: 1, to: 0 },
      { type: "copy", from: 3, to: 1 },
    ]);
  });
});
