/** A registry on this machine that has one package of its own, and leads to the usual one for all others. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";

export interface PackageJson {
  readonly name: string;
  readonly version: string;
  readonly dependencies: object;
  readonly bin: object;
}

export class Registry {
  readonly url: string;
  readonly #server: Server;

  private constructor(url: string, server: Server) {
    this.url = url;
    this.#server = server;
  }

  static async start({ name, version, dependencies, bin }: PackageJson, tarball: Buffer): Promise<Registry> {
    const usual = execFileSync("npm", ["config", "get", "registry"], { encoding: "utf8" }).trim().replace(/\/$/, "");
    const server = createServer((request, response) => {
      if (request.url === `/${name}/package.tgz`) return response.end(tarball);
      if (request.url !== `/${name}`) return response.writeHead(302, { location: usual + request.url }).end();
      const integrity = `sha512-${createHash("sha512").update(tarball).digest("base64")}`;
      const dist = { tarball: `${url}/${name}/package.tgz`, integrity };
      // As the registry finds in a tarball that is published to it.
      const manifest = { name, version, dependencies, bin, dist, _hasShrinkwrap: true };
      const versions = { [version]: manifest };
      return response.end(JSON.stringify({ name, "dist-tags": { latest: version }, versions }));
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    return new Registry(url, server);
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}
