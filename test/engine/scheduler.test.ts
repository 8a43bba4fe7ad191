import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Scheduler } from "../../src/engine/scheduler.ts";
import { type SlotMove, SlotTable } from "../../src/engine/slots.ts";

const LIMITS = { maxTokens: 8, maxPrompts: Number.POSITIVE_INFINITY, maxScored: 5 };

let lastId = 0;

function waiting(name: string, numUnread: number, maxChunk = Number.POSITIVE_INFINITY, isScored = false) {
  return { name, id: lastId++, group: { lastTurn: 0 }, slot: -1, numUnread, maxChunk, isScored };
}

/** The sequences of one request. */
function grouped(...names: readonly string[]): Waiting[] {
  const group = { lastTurn: 0 };
  return names.map((name) => ({ ...waiting(name, 100), group }));
}

type Waiting = ReturnType<typeof waiting>;

/** With all of them in slots. */
function schedulerOf(...sequences: readonly Waiting[]): Scheduler<Waiting> {
  const scheduler = new Scheduler<Waiting>(sequences.length);
  for (const sequence of sequences) scheduler.enqueue(sequence);
  for (const _ of sequences) scheduler.admit();
  return scheduler;
}

/** Reads what the plan says and names it. */
function readOnce(scheduler: Scheduler<Waiting>, limits = LIMITS): string {
  const { chunks } = scheduler.plan(limits);
  for (const { sequence, numTokens } of chunks) {
    sequence.numUnread -= numTokens;
    if (sequence.numUnread === 0) scheduler.promote(sequence);
  }
  return chunks.map(({ sequence, numTokens }) => `${sequence.name}${numTokens}`).join(" ");
}

function readTimes(scheduler: Scheduler<Waiting>, count: number, limits = LIMITS): string[] {
  return Array.from({ length: count }, () => readOnce(scheduler, limits));
}

describe("scheduler", () => {
  test("admits first come, first served, while slots are free", () => {
    const scheduler = new Scheduler<Waiting>(3);
    for (const name of ["a", "b", "c", "d"]) scheduler.enqueue(waiting(name, 1));
    const admitted = [1, 2, 3, 4].map(() => scheduler.admit()?.name);
    expect(admitted).toEqual(["a", "b", "c", undefined]);
    expect(scheduler.waiting.map(({ name }) => name)).toEqual(["d"]);
  });

  test("a free slot goes to the request with the fewest, then to the one served longest ago", () => {
    const scheduler = new Scheduler<Waiting>(3);
    const [a, b, c] = [grouped("a1", "a2", "a3", "a4"), grouped("b1", "b2"), grouped("c1")];
    for (const sequence of [...a, ...b, ...c]) scheduler.enqueue(sequence);
    const admitted = [1, 2, 3].map(() => scheduler.admit()?.name);
    expect(admitted).toEqual(["a1", "b1", "c1"]);
    const next = (gone: Waiting) => {
      scheduler.remove(gone);
      return scheduler.admit()?.name;
    };
    expect(next(c[0]!)).toBe("a2");
    expect(next(a[0]!)).toBe("b2");
    expect(next(b[0]!)).toBe("a3");
  });

  test("with one slot requests take turns", () => {
    const scheduler = new Scheduler<Waiting>(1);
    for (const sequence of grouped("a1", "a2", "a3")) scheduler.enqueue(sequence);
    const order: string[] = [];
    for (let sequence = scheduler.admit(); sequence !== undefined; sequence = scheduler.admit()) {
      order.push(sequence.name);
      if (order.length === 1) for (const other of [...grouped("b1"), ...grouped("c1", "c2")]) scheduler.enqueue(other);
      scheduler.remove(sequence);
    }
    expect(order).toEqual(["a1", "b1", "c1", "a2", "c2", "a3"]);
  });

  test("only a request with two slots more than a waiting one has its last sequence preempted", () => {
    const scheduler = new Scheduler<Waiting>(4);
    const preempt = (): string | undefined => {
      const sequence = scheduler.findPreemptible();
      if (sequence === undefined) return undefined;
      scheduler.preempt(sequence);
      return `${sequence.name} for ${scheduler.admit()?.name}`;
    };
    for (const sequence of grouped("a1", "a2", "a3", "a4", "a5")) scheduler.enqueue(sequence);
    for (let i = 0; i < 4; i++) scheduler.admit();
    expect(preempt()).toBeUndefined(); // it is alone
    for (const sequence of grouped("b1", "b2", "b3")) scheduler.enqueue(sequence);
    expect([preempt(), preempt(), preempt()]).toEqual(["a4 for b1", "a3 for b2", undefined]);
    for (const sequence of [...grouped("c1"), ...grouped("d1"), ...grouped("e1")]) scheduler.enqueue(sequence);
    expect([preempt(), preempt(), preempt()]).toEqual(["b2 for c1", "a2 for d1", undefined]);
    expect(scheduler.waiting.map(({ name }) => name)).toEqual(["a2", "a3", "a4", "a5", "b2", "b3", "e1"]);
  });

  test("each request has its turn in what steps read, however many prompts another has", () => {
    const [a, b] = [grouped("a1", "a2", "a3"), grouped("b1")];
    b[0]!.numUnread = 10;
    expect(readTimes(schedulerOf(...a, ...b), 5)).toEqual(["b18", "a18", "b12 a26", "a38", "a18"]);
  });

  test("prompts take turns, so that a short one does not wait for a long one", () => {
    const one = { ...LIMITS, maxPrompts: 1 };
    const scheduler = schedulerOf(waiting("long", 100), waiting("short", 10));
    expect(readTimes(scheduler, 5, one)).toEqual(["long8", "short8", "long8", "short2", "long8"]);
  });

  test("the next prompts use what a prompt leaves of a step, in the order of their slots", () => {
    const scheduler = schedulerOf(waiting("a", 3), waiting("b", 2), waiting("c", 20), waiting("d", 9));
    expect(readTimes(scheduler, 5)).toEqual(["a3 b2 c3", "d8", "c8", "c7 d1", "c2"]);
    expect(scheduler.plan(LIMITS)).toEqual({ numDecoding: 4, chunks: [] });
  });

  test("chunks are smaller while sequences decode, within the stall limit", () => {
    const scheduler = schedulerOf(waiting("a", 100), waiting("b", 1));
    expect(readOnce(scheduler, { ...LIMITS, maxPrompts: 1 })).toBe("a8");
    expect(readOnce(scheduler, { ...LIMITS, maxTokens: 1 })).toBe("b1");
    expect(scheduler.plan({ ...LIMITS, maxTokens: 3 })).toMatchObject({ numDecoding: 1, chunks: [{ numTokens: 3 }] });
    expect(scheduler.plan({ ...LIMITS, maxTokens: 0 })).toEqual({ numDecoding: 1, chunks: [] });
  });

  test("a sequence's own limit bounds its chunks", () => {
    const scheduler = schedulerOf(waiting("a", 100, 5), waiting("b", 100));
    expect(readTimes(scheduler, 2)).toEqual(["a5 b3", "a5 b3"]);
  });

  test("prompts whose tokens all get logits share a limit of their own", () => {
    const scheduler = schedulerOf(
      ...["a", "b"].map((name) => waiting(name, 9, Number.POSITIVE_INFINITY, true)),
      waiting("c", 9),
    );
    expect(readTimes(scheduler, 4)).toEqual(["a5 c3", "b5 c3", "a4 b1 c3", "b3"]);
  });

  test("all decoding sequences decode in each step", () => {
    const scheduler = schedulerOf(waiting("a", 3), waiting("b", 3), waiting("c", 3));
    readTimes(scheduler, 2, { ...LIMITS, maxPrompts: 1 });
    const plan = scheduler.plan(LIMITS);
    expect(plan.numDecoding).toBe(2);
    expect(plan.chunks.map(({ sequence }) => sequence.name)).toEqual(["c"]);
  });

  test("a removed sequence leaves the queue or its slot", () => {
    const scheduler = new Scheduler<Waiting>(1);
    const [a, b] = [waiting("a", 3), waiting("b", 3)];
    scheduler.enqueue(a);
    scheduler.enqueue(b);
    scheduler.admit();
    scheduler.remove(b);
    scheduler.remove(a);
    expect(scheduler.isIdle).toBe(true);
    expect(scheduler.plan(LIMITS)).toEqual({ numDecoding: 0, chunks: [] });
  });
});

describe("slots", () => {
  test("however sequences join, start to decode or leave, each state is in its slot and decoding ones come first", () => {
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
          const running = [...table.running];
          const some = running[pick % Math.max(running.length, 1)];
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
          for (const [slot, sequence] of table.running.entries()) {
            expect(states[slot]).toBe(sequence.name);
            expect(prefilling.has(sequence)).toBe(slot >= table.numDecoding);
          }
        });
      }),
    );
  });

  test("removing a decoding sequence takes at most two copies", () => {
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
