/**
 * The connection to a Valkey or Redis server. Every command is answered, or fails with
 * `store_unavailable`, within the time limit, whatever the server does. It reconnects by itself.
 */
import { Redis } from "ioredis";
import { DenseMambaError } from "../../errors.ts";

const MAX_RETRY_DELAY_MS = 2000;
const SCAN_COUNT = 1000;

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

  /** Begins to connect. @throws `invalid_config` for a malformed URL */
  constructor({ url, timeoutMs }: ConnectionOptions) {
    const parsed = parseUrl(url);
    this.#timeoutMs = timeoutMs;
    this.#address = parsed.host;
    this.#redis = new Redis(parsed.href, {
      protocol: 2,
      connectTimeout: timeoutMs,
      // No answer to one command, and no data at all. The latter ends the connection.
      commandTimeout: timeoutMs,
      socketTimeout: timeoutMs,
      // Commands fail at once while disconnected, and are never repeated: they may have been
      // executed.
      enableOfflineQueue: false,
      autoResendUnfulfilledCommands: false,
      maxRetriesPerRequest: 0,
      // After a failover the address leads to the new primary, but the connection to the old one.
      reconnectOnError: ({ message }) => message.startsWith("READONLY"),
      retryStrategy: (attempt) => Math.min(50 * 2 ** attempt, MAX_RETRY_DELAY_MS),
    });
    // Without a listener an error would end the process. Callers get it from their commands.
    this.#redis.on("error", (error: Error) => {
      this.#lastError = error.message;
    });
  }

  /** Waits until it is connected, or that has failed or timed out. */
  async waitForConnection(): Promise<void> {
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

  /** @throws `store_unavailable` with the server's address and what went wrong */
  async run<T>(command: (redis: Redis) => Promise<T>): Promise<T> {
    if (this.#redis.status !== "ready") throw this.#unavailable(this.#lastError || "not connected");
    try {
      return await command(this.#redis);
    } catch (error) {
      const { message } = error as Error;
      // NOTE: no `cause`: the client's errors contain the command's arguments, with states and
      // passwords.
      throw this.#unavailable(/timed out/i.test(message) ? `no answer within ${this.#timeoutMs} ms` : message);
    }
  }

  /** The names of all keys with this prefix, possibly repeated. Does not block the server. */
  async *scan(prefix: string): AsyncGenerator<string[]> {
    const pattern = `${prefix.replaceAll(/[*?[\]\\^]/g, "\\$&")}*`;
    let cursor = "0";
    do {
      const reply: unknown = await this.run((redis) => redis.scan(cursor, "MATCH", pattern, "COUNT", SCAN_COUNT));
      const [next, names] = this.#scanReply("SCAN", reply);
      yield names;
      cursor = next;
    } while (cursor !== "0");
  }

  /** Fields and values of a hash in turn. */
  async *scanHash(key: string): AsyncGenerator<string[]> {
    let cursor = "0";
    do {
      const reply: unknown = await this.run((redis) => redis.hscan(key, cursor, "COUNT", SCAN_COUNT));
      const [next, pairs] = this.#scanReply("HSCAN", reply);
      yield pairs;
      cursor = next;
    } while (cursor !== "0");
  }

  /**
   * The error for a reply that the command cannot have. Reconnects: commands and replies may be out
   * of step, so that the next reply would be another's.
   */
  distrust(what: string): DenseMambaError {
    this.#redis.disconnect(true);
    return this.#unavailable(what);
  }

  close(): void {
    this.#redis.disconnect();
  }

  #scanReply(command: string, reply: unknown): [string, string[]] {
    const [cursor, found] = Array.isArray(reply) ? (reply as unknown[]) : [];
    if (typeof cursor === "string" && Array.isArray(found) && found.every((item) => typeof item === "string")) {
      return [cursor, found];
    }
    throw this.distrust(unexpectedReply(command, reply));
  }

  #unavailable(what: string): DenseMambaError {
    return new DenseMambaError("store_unavailable", `the Valkey server at ${this.#address} cannot be used: ${what}`);
  }
}

export function unexpectedReply(command: string, reply: unknown): string {
  return `it answered ${command} with ${JSON.stringify(reply)?.slice(0, 50)}`;
}

function parseUrl(url: string): URL {
  const match = /^(?:redis|valkey)(s?):\/\//.exec(url);
  // ioredis knows the protocol by this name only.
  const known = match && url.replace(match[0], `redis${match[1]}://`);
  if (known !== null && URL.canParse(known) && new URL(known).host !== "") return new URL(known);
  throw new DenseMambaError(
    "invalid_config",
    `the URL of the Valkey server must be redis://host:port or valkey://host:port, or with rediss or valkeys for TLS; given one that begins with ${JSON.stringify(url.slice(0, 10))}`,
  );
}
