/**
 * Requests to the hub, through Hugging Face's client: a revision's commit, its files, and their
 * bytes from any offset. Turns failures into `pull_failed`, one line each. Knows no cache.
 */
import { downloadFile, HubApiError, listFiles, modelInfo } from "@huggingface/hub";
import { DenseMambaError } from "../errors.ts";
import { formatModelId, isCommit, type ModelId } from "./model-id.ts";

export interface HubFile {
  readonly path: string;
  readonly numBytes: number;
  /** Identifies the content for git or LFS; also the blob's name in the cache. */
  readonly hash: string;
  readonly hashKind: "sha256" | "git";
}

export interface HubClientOptions {
  /** Without a trailing slash. */
  readonly endpoint: string;
  readonly token: string | undefined;
  readonly fetch: typeof fetch;
}

/** There was no answer: the caller may have the model already. */
export class HubUnreachable extends DenseMambaError {
  constructor(endpoint: string, cause: unknown) {
    super("pull_failed", `cannot reach ${endpoint} (${reasonOf(cause)})`, { cause });
  }
}

export class HubClient {
  readonly #endpoint: string;
  readonly #token: string | undefined;
  readonly #fetch: typeof fetch;

  constructor({ endpoint, token, fetch }: HubClientOptions) {
    this.#endpoint = endpoint;
    this.#token = token;
    this.#fetch = (input, init) => fetch(input, this.#authorized(input, init));
  }

  /** @throws `pull_failed` if there is no such model or revision, or the token may not read it */
  async commitOf(id: ModelId): Promise<string> {
    const { repo: name, revision } = id;
    const info = await this.#ask(id, () =>
      modelInfo({ name, revision, additionalFields: ["sha"], hubUrl: this.#endpoint, fetch: this.#fetch }),
    );
    if (!isCommit(info.sha)) throw this.#malformed(id, `commit ${JSON.stringify(info.sha)}`);
    return info.sha;
  }

  /** The files in the top folder. */
  async list(id: ModelId, commit: string): Promise<HubFile[]> {
    return this.#ask(id, async () => {
      const files: HubFile[] = [];
      const request = { repo: id.repo, revision: commit, hubUrl: this.#endpoint, fetch: this.#fetch };
      for await (const { type, path, size, oid = "", lfs } of listFiles(request)) {
        if (type !== "file") continue;
        const content = lfs ? { numBytes: lfs.size, hash: lfs.oid } : { numBytes: size, hash: oid };
        // The hash becomes a file name.
        if (!/^(?:[0-9a-f]{40}|[0-9a-f]{64})$/.test(content.hash)) {
          throw this.#malformed(id, `hash ${JSON.stringify(content.hash)} of ${path}`);
        }
        files.push({ path, ...content, hashKind: lfs ? "sha256" : "git" });
      }
      return files;
    });
  }

  /** A file's bytes from `start`. The stream fails if the connection does. */
  async read(id: ModelId, commit: string, { path, numBytes }: HubFile, start: number) {
    const blob = await this.#ask(id, () =>
      downloadFile({
        repo: id.repo,
        revision: commit,
        path,
        hubUrl: this.#endpoint,
        fetch: this.#fetch,
        // Plain HTTP can resume at any byte, and mirrors support it too.
        xet: false,
      }),
    );
    if (blob === null) throw new DenseMambaError("pull_failed", `${formatModelId(id)} has no ${path}`);
    return blob.slice(start, numBytes).stream();
  }

  /**
   * Not left to the client, which accepts only tokens that begin with `hf_`: mirrors have others.
   * Only the hub gets the token; `fetch` drops it when a redirect leads elsewhere.
   */
  #authorized(input: Parameters<typeof fetch>[0], init: RequestInit = {}): RequestInit {
    const url = new URL(input instanceof Request ? input.url : input);
    if (this.#token === undefined || url.origin !== new URL(this.#endpoint).origin) return init;
    const headers = new Headers(init.headers);
    headers.set("authorization", `Bearer ${this.#token}`);
    return { ...init, headers };
  }

  async #ask<T>(id: ModelId, request: () => Promise<T>): Promise<T> {
    try {
      return await request();
    } catch (error) {
      if (error instanceof DenseMambaError) throw error;
      if (error instanceof HubApiError) throw this.#refused(id, error);
      throw new HubUnreachable(this.#endpoint, error);
    }
  }

  #malformed(id: ModelId, what: string): DenseMambaError {
    return new DenseMambaError(
      "pull_failed",
      `${this.#endpoint} answered for ${formatModelId(id)} with an invalid ${what}`,
    );
  }

  #refused(id: ModelId, error: HubApiError): DenseMambaError {
    const name = formatModelId(id);
    const { statusCode: status } = error;
    const reason = error.message.split(". URL:")[0]!.trim().replaceAll(/\s+/g, " ");
    const fail = (message: string) => new DenseMambaError("pull_failed", message, { cause: error });
    if (status === 404) return fail(`${this.#endpoint} has no ${name} (${reason})`);
    if (status !== 401 && status !== 403) return fail(`${this.#endpoint} answered ${status} for ${name} (${reason})`);
    const help =
      this.#token === undefined
        ? "if it is private or gated, set HF_TOKEN"
        : `HF_TOKEN may not read it; accept a gated model's terms at ${this.#endpoint}/${id.repo}`;
    return fail(`${this.#endpoint} does not show ${name} (${status}: ${reason}); ${help}`);
  }
}

/** The innermost cause: `fetch failed` itself says nothing. */
function reasonOf(error: unknown): string {
  let reason = error;
  while (reason instanceof Error && reason.cause instanceof Error) reason = reason.cause;
  if (!(reason instanceof Error)) return String(reason);
  return "code" in reason && typeof reason.code === "string" ? reason.code : reason.message;
}
