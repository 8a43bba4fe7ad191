/** A proxy on this machine that clients reach other servers through, by CONNECT. */
import { once } from "node:events";
import { createServer } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";

export class ProxyServer {
  /** `host:port` of each connection that it was asked for. */
  readonly targets: string[] = [];
  readonly #server = createServer();
  readonly #sockets = new Set<Socket>();

  private constructor() {
    this.#server.on("connection", (socket) => this.#sockets.add(socket));
    this.#server.on("connect", (request, client) => {
      this.targets.push(request.url!);
      const { hostname, port } = new URL(`http://${request.url}`);
      const upstream = connect(Number(port), hostname, () => client.write("HTTP/1.1 200 OK\r\n\r\n"));
      this.#sockets.add(upstream);
      client.pipe(upstream).pipe(client);
      for (const socket of [client, upstream]) socket.on("error", () => {});
    });
  }

  static async start(): Promise<ProxyServer> {
    const proxy = new ProxyServer();
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }
}
