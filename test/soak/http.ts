/**
 * The soak test's HTTP client: a JSON request, or a streamed completion that the client may leave.
 * One connection each, so that a server's death breaks only the requests in flight.
 */
import { request as httpRequest, type IncomingMessage } from "node:http";

export interface Reply {
  readonly status: number;
  readonly body: Buffer;
}

/** @throws Error if the connection breaks before the whole answer is there */
export async function ask(method: string, url: string, body?: unknown): Promise<Reply> {
  const response = await send(method, url, body);
  return { status: response.statusCode ?? 0, body: await readAll(response) };
}

/** The error code of a refusal. */
export function codeOf({ status, body }: Reply): string {
  try {
    const { error } = JSON.parse(body.toString()) as { readonly error?: { readonly code?: string } };
    return error?.code ?? `HTTP ${status}`;
  } catch {
    return `HTTP ${status}`;
  }
}

export type StreamEnd =
  /** The whole answer, and exactly one end. */
  | { readonly type: "finished" }
  | { readonly type: "refused"; readonly code: string }
  /** The server said why it stopped. */
  | { readonly type: "failed"; readonly code: string }
  /** We left. */
  | { readonly type: "left" }
  /** The connection broke, after the request was accepted or before that was known. */
  | { readonly type: "broken"; readonly wasAccepted: boolean }
  /** It ended in a way that no stream should. */
  | { readonly type: "wrong"; readonly what: string };

export interface StreamOutcome {
  readonly tokenIds: readonly number[];
  readonly end: StreamEnd;
}

/**
 * Never rejects.
 * @param leaveAfter tokens after which the connection is closed
 */
export async function streamTokens(
  baseUrl: string,
  body: object,
  { leaveAfter = Number.POSITIVE_INFINITY }: { readonly leaveAfter?: number } = {},
): Promise<StreamOutcome> {
  const reader = new TokenStream();
  let wasAccepted = false;
  try {
    const response = await send("POST", `${baseUrl}/v1/completions`, { ...body, stream: true, return_token_ids: true });
    if (response.statusCode !== 200) {
      const refusal = { status: response.statusCode ?? 0, body: await readAll(response) };
      return { tokenIds: [], end: { type: "refused", code: codeOf(refusal) } };
    }
    wasAccepted = true;
    response.setEncoding("utf8");
    for await (const text of response) {
      reader.push(text as string);
      if (reader.tokenIds.length < leaveAfter || reader.isOver) continue;
      response.destroy();
      return { tokenIds: reader.tokenIds, end: { type: "left" } };
    }
    return { tokenIds: reader.tokenIds, end: reader.end() };
  } catch {
    return { tokenIds: reader.tokenIds, end: reader.isOver ? reader.end() : { type: "broken", wasAccepted } };
  }
}

/** The data-only events of one choice's stream. */
export class TokenStream {
  readonly tokenIds: number[] = [];
  #rest = "";
  #numFinished = 0;
  #numDone = 0;
  #numAfterEnd = 0;
  #error: string | undefined;

  /** Whether its end has come. */
  get isOver(): boolean {
    return this.#numDone > 0 || this.#error !== undefined;
  }

  /** A piece of the body, cut anywhere. */
  push(text: string): void {
    const events = (this.#rest + text).split("\n\n");
    this.#rest = events.pop()!;
    for (const event of events) {
      if (!event.startsWith("data: ")) continue; // a heartbeat
      if (this.isOver) this.#numAfterEnd++;
      else this.#read(event.slice("data: ".length));
    }
  }

  /** The body has ended. */
  end(): StreamEnd {
    if (this.#numAfterEnd > 0) return { type: "wrong", what: `${this.#numAfterEnd} events after the end` };
    if (this.#error !== undefined) {
      return this.#numFinished === 0
        ? { type: "failed", code: this.#error }
        : { type: "wrong", what: `${this.#error} after a finish_reason` };
    }
    if (this.#numDone === 0) return { type: "broken", wasAccepted: true };
    if (this.#numFinished === 1) return { type: "finished" };
    return { type: "wrong", what: `${this.#numFinished} finish reasons before [DONE]` };
  }

  #read(data: string): void {
    if (data === "[DONE]") {
      this.#numDone++;
      return;
    }
    const chunk = JSON.parse(data) as Chunk;
    if (chunk.error) {
      this.#error = chunk.error.code ?? "an error without a code";
      return;
    }
    const choice = chunk.choices?.[0];
    this.tokenIds.push(...(choice?.token_ids ?? []));
    if (choice?.finish_reason) this.#numFinished++;
  }
}

interface Chunk {
  readonly choices?: readonly { readonly token_ids?: readonly number[]; readonly finish_reason?: string | null }[];
  readonly error?: { readonly code?: string | null };
}

function send(method: string, url: string, body: unknown): Promise<IncomingMessage> {
  const payload = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
  const headers = payload && { "content-type": "application/json", "content-length": payload.length };
  return new Promise((resolve, reject) => {
    const call = httpRequest(url, { method, agent: false, ...(headers && { headers }) }, resolve);
    call.on("error", reject);
    call.end(payload);
  });
}

async function readAll(response: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
