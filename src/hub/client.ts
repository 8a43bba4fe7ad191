/**
 * What is asked of the hub, through Hugging Face's client: a revision's commit, its files, their bytes from any place on.
 * Its failures become `pull_failed`, one line each. Knows no cache.
 */
import { downloadFile, HubApiError, listFiles, modelInfo } from "@huggingface/hub";
import { DenseMambaError } from "../errors.ts";
import { formatModelId, isCommit, type ModelId } from "./model-id.ts";

export interface HubFile {
  readonly path: string;
  readonly numBytes: number;
  /** What git or LFS knows the content by, and how to compute it. Also the blob's name in the cache. */
  readonly hash: string;
  readonly hashKind: "sha256" | "git";
}

export interface HubClientOptions {
  /** Without a slash at its end. */
  readonly endpoint: string;
  readonly token: string | undefined;
  readonly fetch: typeof fetch;
}

/** Thrown where no answer came: the caller may have the model already. */
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

  /** @throws `pull_failed` if there is no such model or revision, or it may not be seen. */
  async commitOf(id: ModelId): Promise<string> {
    const { repo: name, revision } = id;
    const info = await this.#ask(id, () =>
      modelInfo({ name, revision, additionalFields: ["sha"], hubUrl: this.#endpoint, fetch: this.#fetch }),
    );
    if (!isCommit(info.sha)) throw this.#malformed(id, `commit ${JSON.stringify(info.sha)}`);
    return info.sha;
  }

  /** Files in the top folder. */
  async list(id: ModelId, commit: string): Promise<HubFile[]> {
    return this.#ask(id, async () => {
      const files: HubFile[] = [];
      const request = { repo: id.repo, revision: commit, hubUrl: this.#endpoint, fetch: this.#fetch };
      for await (const { type, path, size, oid = "", lfs } of listFiles(request)) {
        if (type !== "file") continue;
        const content = lfs ? { numBytes: lfs.size, hash: lfs.oid } : { numBytes: size, hash: oid };
        // It becomes the name of a file.
        if (!/^(?:[0-9a-f]{40}|[0-9a-f]{64})$/.test(content.hash)) {
          throw this.#malformed(id, `hash ${JSON.stringify(content.hash)} of ${path}`);
        }
        files.push({ path, ...content, hashKind: lfs ? "sha256" : "git" });
      }
      return files;
    });
  }

  /** A file's bytes from `start` on. The stream fails if the connection does. */
  async read(id: ModelId, commit: string, { path, numBytes }: HubFile, start: number) {
    const blob = await this.#ask(id, () =>
      downloadFile({
        repo: id.repo,
        revision: commit,
        path,
        hubUrl: this.#endpoint,
        fetch: this.#fetch,
        // Plain HTTP: what is cut off goes on at any byte, and mirrors have it too.
        xet: false,
      }),
    );
    if (blob === null) throw new DenseMambaError("pull_failed", `${formatModelId(id)} has no ${path}`);
    return blob.slice(start, numBytes).stream();
  }

  /**
   * The client's own check wants tokens that begin with `hf_`; mirrors have others. Only the hub itself is shown the token:
   * `fetch` drops it where a redirect leads elsewhere.
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
    return new DenseMambaError("pull_failed", `${this.#endpoint} says of ${formatModelId(id)}: ${what}, which is none`);
  }

  #refused(id: ModelId, error: HubApiError): DenseMambaError {
    const name = formatModelId(id);
    const { statusCode: status } = error;
    const said = error.message.split(". URL:")[0]!.trim().replaceAll(/\s+/g, " ");
    const fail = (message: string) => new DenseMambaError("pull_failed", message, { cause: error });
    if (status === 404) return fail(`${this.#endpoint} has no ${name} (${said})`);
    if (status !== 401 && status !== 403) return fail(`${this.#endpoint} answered ${status} for ${name} (${said})`);
    const help =
      this.#token === undefined
        ? "if it is private or gated, set HF_TOKEN"
        : `HF_TOKEN may not read it; a gated model's terms are accepted at ${this.#endpoint}/${id.repo}`;
    return fail(`${this.#endpoint} does not show ${name} (${status}: ${said}); ${help}`);
  }
}

/** `fetch failed` says nothing; its cause does. */
function reasonOf(error: unknown): string {
  let reason = error;
  while (reason instanceof Error && reason.cause instanceof Error) reason = reason.cause;
  if (!(reason instanceof Error)) return String(reason);
  return "code" in reason && typeof reason.code === "string" ? reason.code : reason.message;
}
