import { describe, expect, test } from "vitest";
import { PendingPrefixes } from "../../src/prefix/pending-prefixes.ts";

const ids = (length: number) => Array.from({ length }, (_, i) => i);

describe("pending prefixes", () => {
  const { signal } = new AbortController();
  const at = (...lengths: number[]) => ({ lengths });

  test("a prompt waits only for the longest pending prefix of its own", async () => {
    const pending = new PendingPrefixes();
    const [one, other] = [pending.open(), pending.open()];
    const first = await one.enter("s", ids(100), signal, async () => at(40, 60, 99));
    const order: string[] = [];
    const branched = other.enter("s", [...ids(70), 1, 2, 3], signal, async () => {
      order.push("planned");
      return at();
    });
    first.resolve(40);
    await new Promise(setImmediate);
    expect(order).toEqual([]);
    first.resolve(60);
    await branched;
    expect(order).toEqual(["planned"]);
  });

  test("a failed plan delays no others, and closed requests leave nothing", async () => {
    const pending = new PendingPrefixes();
    const [one, other] = [pending.open(), pending.open()];
    const failure = one.enter("s", ids(100), signal, () => Promise.reject(new Error("no")));
    await expect(failure).rejects.toThrow("no");
    await other.enter("s", ids(100), signal, async () => at(99));
    expect(pending.size).toBe(1);
    one.close();
    other.close();
    other.close();
    expect(pending.size).toBe(0);
  });
});
