/**
 * A server on this machine that speaks as much of the Hugging Face hub's API as a pull needs: model
 * info, file lists, `resolve` with a redirect to another origin for large files, ranges; and that
 * can fail in the ways a network does.
 */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface HubRepo {
  readonly commit: string;
  readonly files: Readonly<Record<string, Uint8Array>>;
  /** Nothing is shown without this token. */
  readonly token?: string;
  /** The list is shown to all, the files to nobody. */
  readonly gated?: boolean;
}

/** What goes wrong with the next requests for bytes, one entry a request. */
export type Fault =
  | "none"
  /** The connection breaks after so many bytes of the answer. */
  | { readonly cutAfter: number }
  /** Every byte of the answer is another. */
  | "wrong bytes"
  /** Ten bytes more than there are. */
  | "too long"
  | { readonly status: number };

export interface SeenRequest {
  readonly origin: "hub" | "store";
  readonly url: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
}

/** Above this a file is large: kept by LFS, served by the store. */
const LARGE_BYTES = 4000;

export class HubServer {
  /** Requests for bytes beyond the probe of their size. */
  readonly requests: SeenRequest[] = [];
  /** All others. */
  readonly questions: string[] = [];
  readonly faults: Fault[] = [];
  readonly #repos = new Map<string, HubRepo>();
  readonly #hub = createServer((request, response) => this.#answer(request, response));
  /** Another port is another origin, as the hub's storage is. */
  readonly #store = createServer((request, response) => this.#serveBytes("store", request, response));

  static async start(): Promise<HubServer> {
    const server = new HubServer();
    await Promise.all([listen(server.#hub), listen(server.#store)]);
    return server;
  }

  get endpoint(): string {
    return address(this.#hub);
  }

  /** `name` may carry a revision: `org/name@branch`. */
  add(name: string, repo: HubRepo): void {
    const [repository, revision = "main"] = name.split("@") as [string, string?];
    this.#repos.set(`${repository}@${revision}`, repo);
    this.#repos.set(`${repository}@${repo.commit}`, repo);
  }

  async close(): Promise<void> {
    for (const server of [this.#hub, this.#store]) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  }

  #answer(request: IncomingMessage, response: ServerResponse): unknown {
    const url = new URL(request.url!, this.endpoint);
    const path = decodeURIComponent(url.pathname);
    const info = /^\/api\/models\/([^/]+\/[^/]+)\/revision\/(.+)$/.exec(path);
    const tree = /^\/api\/models\/([^/]+\/[^/]+)\/tree\/(.+)$/.exec(path);
    const resolve = /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(path);
    const [, name = "", revision = ""] = info ?? tree ?? resolve ?? [];
    const repo = this.#repos.get(`${name}@${revision}`);
    if (!resolve) this.questions.push(path);
    if (repo === undefined) {
      // The hub does not tell strangers what there is not.
      const isKnown = [...this.#repos.keys()].some((key) => key.startsWith(`${name}@`));
      if (isKnown) return refuse(response, 404, "RevisionNotFound", `Invalid rev id: ${revision}`);
      const isStranger = request.headers.authorization === undefined;
      if (isStranger) return refuse(response, 401, "RepoNotFound", "Invalid username or password.");
      return refuse(response, 404, "RepoNotFound", "Repository not found");
    }
    if (repo.token !== undefined && request.headers.authorization !== `Bearer ${repo.token}`) {
      return refuse(response, 401, "RepoNotFound", "Invalid username or password.");
    }
    if (info) return json(response, { _id: "1", id: name, sha: repo.commit, lastModified: "2024-01-01T00:00:00.000Z" });
    if (tree) return this.#list(repo, url, response);
    if (repo.gated) return refuse(response, 403, "GatedRepo", `Access to model ${name} is restricted.`);
    const bytes = repo.files[resolve![3]!];
    if (bytes === undefined) return refuse(response, 404, "EntryNotFound", "Entry not found");
    if (bytes.length <= LARGE_BYTES) return this.#serveBytes("hub", request, response, bytes);
    response.writeHead(302, {
      location: `${address(this.#store)}/${name}@${revision}/${resolve![3]}?signature=abc`,
      "x-linked-etag": `"${sha256(bytes)}"`,
      "x-linked-size": String(bytes.length),
      "x-repo-commit": repo.commit,
    });
    return response.end();
  }

  /** Two files a page, as the hub pages long lists. */
  #list({ files }: HubRepo, url: URL, response: ServerResponse): void {
    const from = Number(url.searchParams.get("cursor") ?? 0);
    const directory = { type: "directory", path: "onnx", size: 0, oid: "0" };
    const entries = Object.entries(files).map(([path, bytes]) => ({
      type: "file",
      path,
      size: bytes.length,
      oid: gitHash(bytes),
      ...(bytes.length > LARGE_BYTES && { lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: 134 } }),
    }));
    url.searchParams.set("cursor", String(from + 2));
    const all = [directory, ...entries];
    if (from + 2 < all.length) response.setHeader("link", `<${url.href}>; rel="next"`);
    json(response, all.slice(from, from + 2));
  }

  #serveBytes(
    origin: "hub" | "store",
    request: IncomingMessage,
    response: ServerResponse,
    given?: Uint8Array,
  ): unknown {
    const url = decodeURIComponent(request.url!);
    const [, repo = "", file = ""] = /^\/([^/]+\/[^/]+)\/([^?]+)\?/.exec(url) ?? [];
    let bytes = Buffer.from(given ?? this.#repos.get(repo)!.files[file]!);
    const { range, authorization } = request.headers;
    const isProbe = range === "bytes=0-0";
    if (!isProbe) this.requests.push({ origin, url, range, authorization });
    const fault = isProbe ? undefined : this.faults.shift();
    if (typeof fault === "object" && "status" in fault) return refuse(response, fault.status, "Fault", "out of order");
    if (fault === "wrong bytes") bytes = bytes.map((byte) => byte ^ 1) as Buffer<ArrayBuffer>;
    const [, first = "0", last = String(bytes.length - 1)] = /^bytes=(\d+)-(\d+)?$/.exec(range ?? "") ?? [];
    const part = Buffer.concat([
      bytes.subarray(Number(first), Number(last) + 1),
      Buffer.alloc(fault === "too long" ? 10 : 0),
    ]);
    response.writeHead(range === undefined ? 200 : 206, {
      "content-length": part.length,
      etag: `"${gitHash(bytes)}"`,
      "accept-ranges": "bytes",
      ...(range !== undefined && { "content-range": `bytes ${first}-${last}/${bytes.length}` }),
    });
    if (typeof fault !== "object") return response.end(part);
    return response.write(part.subarray(0, fault.cutAfter), () => response.destroy());
  }
}

function refuse(response: ServerResponse, status: number, code: string, error: string): void {
  response.writeHead(status, { "content-type": "application/json", "x-error-code": code, "x-error-message": error });
  response.end(JSON.stringify({ error }));
}

function json(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { "content-type": "application/json" });
  response.end(JSON.stringify(value));
}

function gitHash(bytes: Uint8Array): string {
  return createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
}

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function listen(server: Server): Promise<void> {
  return new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
}

function address(server: Server): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
