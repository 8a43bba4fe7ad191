/**
 * The connection to a Valkey or Redis server. Every question is answered, or refused with `store_unavailable`, within
 * the time limit: a server that is slow, silent, gone or no such server at all holds up nobody. It reconnects by itself.
 */
import { Redis } from "ioredis";
import { DenseMambaError } from "../../errors.ts";

const MAX_RETRY_DELAY_MS = 2000;

export interface ConnectionOptions {
  /** `redis://` or `valkey://`, with a second s for TLS: `[user:password@]host[:port][/db]`. */
  readonly url: string;
  readonly timeoutMs: number;
}

export class ValkeyConnection {
  readonly #redis: Redis;
  readonly #timeoutMs: number;
  /** Without user and password. */
  readonly #address: string;
  #lastError = "";

  /** Begins to connect. @throws `invalid_config` for a URL that is none */
  constructor({ url, timeoutMs }: ConnectionOptions) {
    const parsed = parseUrl(url);
    this.#timeoutMs = timeoutMs;
    this.#address = parsed.host;
    this.#redis = new Redis(parsed.href, {
      protocol: 2,
      connectTimeout: timeoutMs,
      // Together: no answer to one question, and no answers at all. The latter ends the connection.
      commandTimeout: timeoutMs,
      socketTimeout: timeoutMs,
      // What cannot be asked now is refused now; nothing is asked again that may have been done.
      enableOfflineQueue: false,
      autoResendUnfulfilledCommands: false,
      maxRetriesPerRequest: 0,
      // After a failover: the address leads to the new primary, the connection still to the old one.
      reconnectOnError: ({ message }) => message.startsWith("READONLY"),
      retryStrategy: (attempt) => Math.min(50 * 2 ** attempt, MAX_RETRY_DELAY_MS),
    });
    // Without a listener an error would end the process. Those who ask are told.
    this.#redis.on("error", (error: Error) => {
      this.#lastError = error.message;
    });
  }

  /** Waits for the connection, but not longer than the time limit, and says nothing of what came of it. */
  async settle(): Promise<void> {
    if (this.#redis.status === "ready") return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(done, this.#timeoutMs);
      const redis = this.#redis;
      function done(): void {
        clearTimeout(timer);
        redis.off("ready", done).off("close", done);
        resolve();
      }
      redis.on("ready", done).on("close", done);
    });
  }

  /**
   * @param command asks the server, once
   * @throws `store_unavailable` with the server's address and what went wrong
   */
  async ask<T>(command: (redis: Redis) => Promise<T>): Promise<T> {
    if (this.#redis.status !== "ready") throw this.unavailable(this.#lastError || "not connected");
    try {
      return await command(this.#redis);
    } catch (error) {
      const { message } = error as Error;
      // NOTE: no `cause`: the client's errors carry the command's arguments, states and passwords among them.
      throw this.unavailable(/timed out/i.test(message) ? `no answer within ${this.#timeoutMs} ms` : message);
    }
  }

  /**
   * For an answer that this question cannot have. Whatever answered, the order of questions and answers may be lost, and
   * the next answer another's: the connection is made anew.
   */
  mistrust(what: string): DenseMambaError {
    this.#redis.disconnect(true);
    return this.unavailable(what);
  }

  close(): void {
    this.#redis.disconnect();
  }

  unavailable(what: string): DenseMambaError {
    return new DenseMambaError("store_unavailable", `the Valkey server at ${this.#address} cannot be used: ${what}`);
  }
}

function parseUrl(url: string): URL {
  const match = /^(?:redis|valkey)(s?):\/\//.exec(url);
  // The URL parser wants the name that it knows.
  const known = match && url.replace(match[0], `redis${match[1]}://`);
  if (known !== null && URL.canParse(known) && new URL(known).host !== "") return new URL(known);
  throw new DenseMambaError(
    "invalid_config",
    `the URL of the Valkey server must be redis://host:port or valkey://host:port, or with rediss or valkeys for TLS; given one that begins with ${JSON.stringify(url.slice(0, 10))}`,
  );
}
