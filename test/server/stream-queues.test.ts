/** Whose turn it is on a connection. */
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Lanes } from "../../src/server/websocket/stream-queues.ts";

const LIMITS = { maxLanes: 3, maxInFlight: 2, maxQueued: 4, maxMessageBytes: 100 };

describe("lanes", () => {
  it("keep the order within each, never overlap within one, and never exceed what may run at once", () => {
    const names = [undefined, "a", "b", "c"];
    const jobs = fc.array(fc.record({ lane: fc.constantFrom(...names), startsFirst: fc.boolean() }), { maxLength: 40 });
    fc.assert(
      fc.property(jobs, (given) => {
        const lanes = new Lanes<number>({ ...LIMITS, maxQueued: 100 });
        const running: (string | undefined)[] = [];
        const started = new Map<string | undefined, number[]>();
        const startAll = () => {
          for (let turn = lanes.next(); turn !== undefined; turn = lanes.next()) {
            expect(running).not.toContain(turn.lane);
            running.push(turn.lane);
            expect(running.length).toBeLessThanOrEqual(LIMITS.maxInFlight);
            started.set(turn.lane, [...(started.get(turn.lane) ?? []), turn.job]);
          }
        };
        const endOne = () => {
          if (running.length > 0) lanes.done(running.shift());
          startAll();
        };
        for (const [job, { lane, startsFirst }] of given.entries()) {
          lanes.add(lane, job, 1);
          startAll();
          if (startsFirst) endOne();
        }
        while (!lanes.isIdle) endOne();
        for (const name of names) {
          const added = [...given.keys()].filter((job) => given[job]!.lane === name);
          expect(started.get(name) ?? []).toEqual(added);
        }
      }),
    );
  });

  it("have names that are counted for as long as the connection lasts; the one without a name is not", () => {
    const lanes = new Lanes<string>({ ...LIMITS, maxQueued: 100 });
    for (const name of ["a", "b", "c"]) {
      lanes.add(name, "job", 1);
      lanes.next();
      lanes.done(name);
    }
    lanes.add(undefined, "job", 1);
    lanes.add("a", "again", 1);
    expect(() => lanes.add("d", "job", 1)).toThrow("a connection may use at most 3 stream ids; got one more");
  });

  it("take no more than may wait", () => {
    const lanes = new Lanes<number>(LIMITS);
    for (let job = 0; job < 5; job++) {
      lanes.add(undefined, job, 1);
      lanes.next();
    }
    expect(() => lanes.add(undefined, 5, 1)).toThrow("a connection may have at most 4 responses waiting; got one more");
  });

  it("take no more bytes that wait than one message may have, and have room again when one has run", () => {
    const lanes = new Lanes<number>(LIMITS);
    lanes.add(undefined, 0, 100);
    lanes.next();
    lanes.add(undefined, 1, 60);
    lanes.add(undefined, 2, 40);
    expect(() => lanes.add(undefined, 3, 1)).toThrow("at most 100 bytes together; got 101");
    lanes.done(undefined);
    lanes.next();
    lanes.add(undefined, 3, 60);
    lanes.clear();
    lanes.add(undefined, 4, 100);
  });

  it("that are free take a job though others' queues are full", () => {
    const lanes = new Lanes<number>(LIMITS);
    for (let job = 0; job < 5; job++) {
      lanes.add(undefined, job, 1);
      lanes.next();
    }
    lanes.add("a", 5, 1);
    expect(lanes.next()).toEqual({ lane: "a", job: 5 });
    expect(() => lanes.add("b", 6, 1)).toThrow(/at most 4 responses waiting/);
  });
});
