import { expect, it } from "vitest";
import { LoadFailures } from "../../src/app/load-failures.ts";
import { FakeClock } from "../helpers/clock.ts";

it("each further failure makes the pause twice as long, up to ten minutes; a success forgets them", () => {
  const clock = new FakeClock(0);
  const failures = new LoadFailures("m", clock.nowMs);
  failures.check();
  const pauses = Array.from({ length: 9 }, () => failures.add(new Error("no")).retryAfterMs! / 1000);
  expect(pauses).toEqual([10, 20, 40, 80, 160, 320, 600, 600, 600]);
  expect(() => failures.check()).toThrow('the model "m" could not be loaded: no');
  clock.advance(599_999);
  expect(failures.error).toMatchObject({ code: "model_load_failed", retryAfterMs: 1 });
  expect(failures.isPausing).toBe(true);
  clock.advance(1);
  failures.check();
  expect([failures.isPausing, failures.error === undefined]).toEqual([false, false]);
  failures.clear();
  expect(failures.error).toBeUndefined();
  expect(failures.add("twice").retryAfterMs).toBe(10_000);
});
