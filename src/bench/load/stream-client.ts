/**
 * The client of every measurement over HTTP: one streamed `/v1/completions` request to any
 * OpenAI-compatible server, timed as its user sees it.
 */
import { request as httpRequest } from "node:http";
import { request as httpsRequest } from "node:https";
import { performance } from "node:perf_hooks";

export interface Target {
  /** Without `/v1`. */
  readonly baseUrl: string;
  /** Some servers insist on a name. */
  readonly model?: string;
  readonly apiKey?: string;
}

export interface CompletionRequest {
  readonly promptIds: readonly number[];
  /** Exactly that many are generated: an end of the text is ignored. */
  readonly maxTokens: number;
  /** Silence after which the request counts as failed. */
  readonly timeoutMs: number;
}

/** Times on the process clock, ms. */
export interface StreamRecord {
  readonly sentAtMs: number;
  /** Arrival of each chunk that carries text. */
  readonly chunkAtMs: readonly number[];
  readonly endedAtMs: number;
  /** From the server's usage: a chunk may hold several tokens. */
  readonly numTokens: number;
  readonly text: string;
  /** Why it did not end as asked; undefined for a complete stream. */
  readonly error?: string;
}

/** Never rejects: a failure is a result of the measurement. */
export function streamCompletion(target: Target, { promptIds, maxTokens, timeoutMs }: CompletionRequest) {
  const body = JSON.stringify({
    ...(target.model === undefined ? {} : { model: target.model }),
    prompt: promptIds,
    max_tokens: maxTokens,
    temperature: 0,
    ignore_eos: true,
    stream: true,
    stream_options: { include_usage: true },
  });
  const url = new URL(`${target.baseUrl.replace(/\/+$/, "")}/v1/completions`);
  const send = url.protocol === "https:" ? httpsRequest : httpRequest;
  const headers = {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
    ...(target.apiKey === undefined ? {} : { authorization: `Bearer ${target.apiKey}` }),
  };
  // One connection per request: an idle one that the server closes would look like a failed
  // request.
  const options = { method: "POST", headers, agent: false };

  return new Promise<StreamRecord>((resolve) => {
    const sentAtMs = performance.now();
    // Parsed when the stream has ended: the client shares the processors with the server that it
    // measures.
    const pieces: { readonly text: string; readonly atMs: number }[] = [];
    const events = new CompletionEvents();
    const end = (error: string | undefined) => {
      const endedAtMs = performance.now();
      for (const { text, atMs } of pieces) events.push(text, atMs);
      const problem = error ?? events.problem(maxTokens);
      resolve({
        sentAtMs,
        chunkAtMs: events.chunkAtMs,
        endedAtMs,
        numTokens: events.numTokens,
        text: events.text,
        ...(problem === undefined ? {} : { error: problem }),
      });
    };
    const call = send(url, options, (response) => {
      let refusal = "";
      response.setEncoding("utf8");
      response.on("data", (text: string) => {
        if (response.statusCode === 200) pieces.push({ text, atMs: performance.now() });
        else refusal += text;
      });
      response.on("end", () =>
        end(response.statusCode === 200 ? undefined : `HTTP ${response.statusCode}: ${refusal.slice(0, 200)}`),
      );
      response.on("error", (error) => end(error.message));
    });
    call.setTimeout(timeoutMs, () => call.destroy(new Error(`no byte for ${timeoutMs} ms`)));
    call.on("error", (error) => end(error.message));
    call.end(body);
  });
}

/** The data-only events of a completion's SSE stream. */
export class CompletionEvents {
  readonly chunkAtMs: number[] = [];
  numTokens = 0;
  text = "";
  #rest = "";
  #isDone = false;
  #error: string | undefined;

  /** A piece of the body, cut anywhere. */
  push(text: string, atMs: number): void {
    const events = (this.#rest + text).split(/\r?\n\r?\n/);
    this.#rest = events.pop() ?? "";
    for (const event of events) {
      if (event.startsWith("data:")) this.#read(event.slice("data:".length).trim(), atMs); // else a comment
    }
  }

  /** undefined if the stream is complete and as long as it should be. */
  problem(maxTokens: number): string | undefined {
    if (this.#error !== undefined) return this.#error;
    if (!this.#isDone) return "the stream broke off before [DONE]";
    return this.numTokens === maxTokens ? undefined : `${this.numTokens} tokens instead of ${maxTokens}`;
  }

  #read(data: string, atMs: number): void {
    if (data === "[DONE]") {
      this.#isDone = true;
      return;
    }
    const chunk = JSON.parse(data) as CompletionChunk;
    if (chunk.error) this.#error = chunk.error.message ?? "an error in the stream";
    if (chunk.usage) this.numTokens = chunk.usage.completion_tokens;
    const text = chunk.choices?.[0]?.text;
    if (text) {
      this.chunkAtMs.push(atMs);
      this.text += text;
    }
  }
}

interface CompletionChunk {
  readonly choices?: readonly { readonly text?: string | null }[];
  readonly usage?: { readonly completion_tokens: number } | null;
  readonly error?: { readonly message?: string } | null;
}
