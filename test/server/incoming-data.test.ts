import { expect, it } from "vitest";
import { IncomingData } from "../../src/server/http/incoming-data.ts";
import { startTestServer } from "../helpers/listening-server.ts";

it("the largest is dropped when all together are too large; complete ones no longer count", () => {
  const incomingData = new IncomingData(100);
  const dropped: string[] = [];
  const begin = (name: string) => incomingData.begin(() => dropped.push(name));
  const [a, b, c] = [begin("a"), begin("b"), begin("c")];
  a.add(40);
  b.add(50);
  c.add(10);
  expect(dropped).toEqual([]);
  c.add(1);
  expect(dropped).toEqual(["b"]);
  expect(incomingData.totalBytes).toBe(51);
  b.add(1000); // what was under way
  a.end();
  c.add(80);
  expect(dropped).toEqual(["b"]);
  expect(incomingData.totalBytes).toBe(91);
});

it("a single one is bounded by its own limit only", () => {
  const incomingData = new IncomingData(100);
  const alone = incomingData.begin(() => expect.unreachable());
  alone.add(1000);
  alone.end();
  expect(incomingData.totalBytes).toBe(0);
});

it("a dropped body is answered with 429, and the others are read on", async () => {
  await using server = await startTestServer({ maxIncomingBytes: 200_000 });
  const upload = (bytes: number) => {
    let push!: ReadableStreamDefaultController<Uint8Array>;
    const body = new ReadableStream<Uint8Array>({ start: (controller) => (push = controller) });
    const headers = { "content-type": "application/json" };
    const init = { method: "POST", headers, body, duplex: "half" } as RequestInit;
    const answer = fetch(`${server.url}/v1/completions`, init);
    push.enqueue(Buffer.from(`{"prompt":"a","unknown":"${"x".repeat(bytes)}`));
    const end = () => {
      push.enqueue(Buffer.from('"}'));
      push.close();
    };
    return { answer, end };
  };
  const large = upload(120_000);
  await expect.poll(() => server.deps.incomingData.totalBytes).toBeGreaterThan(120_000);
  const small = upload(90_000);
  const response = await large.answer;
  expect(response.status).toBe(429);
  expect(await response.json()).toMatchObject({ error: { code: "queue_full" } });
  small.end();
  expect((await small.answer).status).toBe(200);
  expect(server.deps.incomingData.totalBytes).toBe(0);
});
