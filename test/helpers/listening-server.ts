/** A test server on a real port of the loopback interface, and raw sockets to it. */
import { connect } from "node:net";
import type { ServerOptions } from "../../src/server/deps.ts";
import { type Listener, listen } from "../../src/server/listen.ts";
import { createTestServer, type TestServer } from "./server-deps.ts";

export interface ListeningServer extends TestServer, AsyncDisposable {
  readonly listener: Listener;
  readonly url: string;
  readonly webSocketUrl: string;
  /** Sends bytes as they are; resolves with all that comes back until the server closes. */
  rawRequest(text: string): Promise<string>;
}

export async function startTestServer(options: Partial<ServerOptions> = {}): Promise<ListeningServer> {
  const server = createTestServer(options);
  const listener = await listen({ ...server, host: "127.0.0.1", port: 0 });
  return {
    ...server,
    listener,
    url: `http://127.0.0.1:${listener.port}`,
    webSocketUrl: `ws://127.0.0.1:${listener.port}/v1/responses`,
    rawRequest: (text) => rawRequest(listener.port, text),
    [Symbol.asyncDispose]: () => listener.close(0),
  };
}

function rawRequest(port: number, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1", () => socket.write(text));
    let received = "";
    socket.on("data", (data) => {
      received += data.toString();
    });
    socket.on("close", () => resolve(received));
    socket.on("error", (error) => (received === "" ? reject(error) : resolve(received)));
  });
}
