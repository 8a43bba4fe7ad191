/** What a WebSocket's outbox writes, and when. */
import { Writable } from "node:stream";
import { expect, it } from "vitest";
import { WebSocket } from "ws";
import { Outbox } from "../../src/server/websocket/outbox.ts";

it("writes what is sent in one tick at once, and nothing later than that", async () => {
  const writes: number[] = [];
  const transport = new Writable({
    write(_chunk, _encoding, done) {
      writes.push(1);
      done();
    },
    writev(chunks, done) {
      writes.push(chunks.length);
      done();
    },
  });
  const socket = {
    readyState: WebSocket.OPEN,
    OPEN: WebSocket.OPEN,
    bufferedAmount: 0,
    once() {},
    send: (text: string) => transport.write(text),
  } as unknown as WebSocket;
  const outbox = new Outbox(socket, transport, { highWaterBytes: 1000, lowWaterBytes: 100 }, 1000);
  for (const text of ["a", "b", "c"]) outbox.send(text);
  expect(writes).toEqual([]);
  await new Promise(setImmediate);
  expect(writes).toEqual([3]);
  outbox.send("d");
  await new Promise(setImmediate);
  expect(writes).toEqual([3, 1]);
});
