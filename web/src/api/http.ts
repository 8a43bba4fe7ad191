/** The server's HTTP endpoints. Knows nothing of the page but where it lies, and its key. */
import { ApiError, UNREACHABLE } from "./errors.ts";
import type { Checkpoint, ErrorBody, Item, Load, Model, Readiness, ResponseObject, Session } from "./wire.ts";

export interface HttpOptions {
  /** Ends with a slash. */
  readonly base: URL;
  readonly key: () => string | undefined;
}

export class HttpApi {
  readonly #options: HttpOptions;

  constructor(options: HttpOptions) {
    this.#options = options;
  }

  /** Answers with 503 too. */
  async ready(): Promise<Readiness> {
    const answer = await this.#fetch("ready");
    const body: unknown = await answer.json().catch(() => undefined);
    if (typeof (body as Readiness | undefined)?.status === "string") return body as Readiness;
    throw new ApiError(UNREACHABLE, { status: answer.status });
  }

  async models(): Promise<readonly Model[]> {
    return (await this.#json<{ data: Model[] }>("v1/models")).data;
  }

  load(): Promise<Load> {
    return this.#json("load");
  }

  async metrics(): Promise<string> {
    return (await this.#checked("metrics")).text();
  }

  async sessions(): Promise<readonly Session[]> {
    return (await this.#json<{ data: Session[] }>("v1/sessions")).data;
  }

  /** @param name of the new session */
  saveResponse(responseId: string, name: string): Promise<Session> {
    return this.#post("v1/sessions", { previous_response_id: responseId, session_id: name });
  }

  deleteSession(id: string): Promise<unknown> {
    return this.#json(sessionPath(id), { method: "DELETE" });
  }

  renameSession(id: string, name: string): Promise<Session> {
    return this.#post(sessionPath(id), { session_id: name });
  }

  /** The oldest first. */
  async checkpoints(id: string): Promise<readonly Checkpoint[]> {
    return (await this.#json<{ data: Checkpoint[] }>(`${sessionPath(id)}/checkpoints`)).data;
  }

  rollBack(id: string, checkpoint: string): Promise<Session> {
    return this.#post(`${sessionPath(id)}/rollback`, { to: checkpoint });
  }

  forkSession(id: string, { checkpoint, name }: { checkpoint: string; name: string }): Promise<Session> {
    return this.#post(`${sessionPath(id)}/fork`, { checkpoint, session_id: name });
  }

  async exportSession(id: string): Promise<Blob> {
    return (await this.#checked(`${sessionPath(id)}/export`)).blob();
  }

  importSession(file: Blob, { name, model }: { name: string; model: string | undefined }): Promise<Session> {
    const query = new URLSearchParams({ session_id: name, ...(model !== undefined && { model }) });
    const headers = { "content-type": "application/octet-stream" };
    return this.#json(`v1/sessions/import?${query}`, { method: "POST", headers, body: file });
  }

  response(id: string): Promise<ResponseObject> {
    return this.#json(`v1/responses/${encodeURIComponent(id)}`);
  }

  /** In their order. */
  async inputItems(id: string): Promise<readonly Item[]> {
    const path = `v1/responses/${encodeURIComponent(id)}/input_items?order=asc&limit=100`;
    return (await this.#json<{ data: Item[] }>(path)).data;
  }

  cancelResponse(id: string): Promise<ResponseObject> {
    return this.#post(`v1/responses/${encodeURIComponent(id)}/cancel`, {});
  }

  #post<T>(path: string, body: object): Promise<T> {
    const headers = { "content-type": "application/json" };
    return this.#json(path, { method: "POST", headers, body: JSON.stringify(body) });
  }

  async #json<T>(path: string, init?: RequestInit): Promise<T> {
    return (await this.#checked(path, init)).json() as Promise<T>;
  }

  /** @throws ApiError if the answer is not a success */
  async #checked(path: string, init?: RequestInit): Promise<Response> {
    const answer = await this.#fetch(path, init);
    if (answer.ok) return answer;
    const body = (await answer.json().catch(() => undefined)) as { error?: ErrorBody } | undefined;
    throw ApiError.of(answer.status, body?.error ?? { message: `the server answered ${answer.status}`, code: null });
  }

  async #fetch(path: string, init: RequestInit = {}): Promise<Response> {
    const key = this.#options.key();
    const headers = new Headers(init.headers);
    if (key !== undefined) headers.set("authorization", `Bearer ${key}`);
    try {
      return await fetch(new URL(path, this.#options.base), { ...init, headers, cache: "no-store" });
    } catch (cause) {
      throw Object.assign(new ApiError(UNREACHABLE), { cause });
    }
  }
}

function sessionPath(id: string): string {
  return `v1/sessions/${encodeURIComponent(id)}`;
}
