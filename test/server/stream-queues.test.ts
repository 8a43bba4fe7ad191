/** Whose turn it is on a connection. */
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { StreamQueues } from "../../src/server/websocket/stream-queues.ts";

const LIMITS = { maxStreams: 3, maxInFlight: 2, maxQueued: 4, maxMessageBytes: 100 };

describe("stream queues", () => {
  it("keep their order, run one job each, and never exceed the limit of running jobs", () => {
    const names = [undefined, "a", "b", "c"];
    const jobs = fc.array(fc.record({ streamId: fc.constantFrom(...names), startsFirst: fc.boolean() }), {
      maxLength: 40,
    });
    fc.assert(
      fc.property(jobs, (given) => {
        const queues = new StreamQueues<number>({ ...LIMITS, maxQueued: 100 });
        const running: (string | undefined)[] = [];
        const started = new Map<string | undefined, number[]>();
        const startAll = () => {
          for (let turn = queues.next(); turn !== undefined; turn = queues.next()) {
            expect(running).not.toContain(turn.streamId);
            running.push(turn.streamId);
            expect(running.length).toBeLessThanOrEqual(LIMITS.maxInFlight);
            started.set(turn.streamId, [...(started.get(turn.streamId) ?? []), turn.job]);
          }
        };
        const endOne = () => {
          if (running.length > 0) queues.done(running.shift());
          startAll();
        };
        for (const [job, { streamId, startsFirst }] of given.entries()) {
          queues.add(streamId, job, 1);
          startAll();
          if (startsFirst) endOne();
        }
        while (!queues.isIdle) endOne();
        for (const name of names) {
          const added = [...given.keys()].filter((job) => given[job]!.streamId === name);
          expect(started.get(name) ?? []).toEqual(added);
        }
      }),
    );
  });

  it("have ids that count while the connection lasts; the stream without an id does not", () => {
    const queues = new StreamQueues<string>({ ...LIMITS, maxQueued: 100 });
    for (const name of ["a", "b", "c"]) {
      queues.add(name, "job", 1);
      queues.next();
      queues.done(name);
    }
    queues.add(undefined, "job", 1);
    queues.add("a", "again", 1);
    expect(() => queues.add("d", "job", 1)).toThrow("a connection may use at most 3 stream ids; got one more");
  });

  it("accept at most the limit of waiting jobs", () => {
    const queues = new StreamQueues<number>(LIMITS);
    for (let job = 0; job < 5; job++) {
      queues.add(undefined, job, 1);
      queues.next();
    }
    expect(() => queues.add(undefined, 5, 1)).toThrow(
      "a connection may have at most 4 responses waiting; got one more",
    );
  });

  it("accept at most the bytes of one message, and have room again once a job has run", () => {
    const queues = new StreamQueues<number>(LIMITS);
    queues.add(undefined, 0, 100);
    queues.next();
    queues.add(undefined, 1, 60);
    queues.add(undefined, 2, 40);
    expect(() => queues.add(undefined, 3, 1)).toThrow("at most 100 bytes together; got 101");
    queues.done(undefined);
    queues.next();
    queues.add(undefined, 3, 60);
    queues.clear();
    queues.add(undefined, 4, 100);
  });

  it("that are free accept a job even if other streams are full", () => {
    const queues = new StreamQueues<number>(LIMITS);
    for (let job = 0; job < 5; job++) {
      queues.add(undefined, job, 1);
      queues.next();
    }
    queues.add("a", 5, 1);
    expect(queues.next()).toEqual({ streamId: "a", job: 5 });
    expect(() => queues.add("b", 6, 1)).toThrow(/at most 4 responses waiting/);
  });
});
