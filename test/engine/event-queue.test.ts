import { expect, test } from "vitest";
import { EventQueue } from "../../src/engine/event-queue.ts";

async function drain(queue: EventQueue<number>): Promise<number[]> {
  const events: number[] = [];
  for await (const event of queue) events.push(event);
  return events;
}

function never(): void {
  throw new Error("the consumer did not leave");
}

test("events arrive in order, whether they were pushed before or after they were asked for", async () => {
  const queue = new EventQueue<number>(never);
  queue.push(1);
  const all = drain(queue);
  queue.push(2);
  await Promise.resolve();
  queue.push(3);
  queue.end();
  expect(await all).toEqual([1, 2, 3]);
  expect(await queue.next()).toEqual({ done: true, value: undefined });
});

test("a failure comes once, after the events before it", async () => {
  const queue = new EventQueue<number>(never);
  queue.push(1);
  queue.end({ error: new Error("broken") });
  expect(await queue.next()).toEqual({ done: false, value: 1 });
  await expect(queue.next()).rejects.toThrow("broken");
  expect((await queue.next()).done).toBe(true);
});

test("a waiting reader gets the failure, a second one the end", async () => {
  const queue = new EventQueue<number>(never);
  const [first, second] = [queue.next(), queue.next()];
  queue.end({ error: new Error("broken") });
  await expect(first).rejects.toThrow("broken");
  expect((await second).done).toBe(true);
});

test("a consumer that stops iterating is reported once, and holds nothing", async () => {
  let numReturns = 0;
  const queue = new EventQueue<number>(() => numReturns++);
  queue.push(1);
  queue.push(2);
  for await (const event of queue) {
    expect(event).toBe(1);
    break;
  }
  await queue.return();
  expect(numReturns).toBe(1);
  expect(queue.isAbandoned).toBe(true);
  queue.push(3);
  queue.end({ error: new Error("broken") });
  expect((await queue.next()).done).toBe(true);
});

test("returning after the end is not leaving early", async () => {
  const queue = new EventQueue<number>(never);
  queue.end();
  await queue.return();
  expect(queue.isAbandoned).toBe(true);
});
