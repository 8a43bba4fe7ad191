/**
 * The server's log: JSON lines on stderr. Whatever happens to stderr (a full disk, a reader that
 * has gone or has stopped reading), the server goes on: lines wait up to a bound; beyond it they
 * are dropped and counted.
 */
import { once } from "node:events";
import type { Writable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { type Logger, pino } from "pino";
import sonicBoom from "sonic-boom";
import type { Config } from "../config/schema.ts";

const MAX_WAITING_BYTES = 256 * 1024;
/** Time to write the last lines. */
const CLOSE_MS = 500;

export interface ServerLog {
  readonly log: Logger;
  readonly numDropped: number;
  /** Later lines are dropped. Resolves when the last lines are written, or their time is over. */
  close(): Promise<void>;
}

export function openLog(level: Config["logLevel"], stderr: Writable & { readonly fd?: number }): ServerLog {
  const options = { level, base: null };
  const { fd } = stderr;
  if (fd === undefined) return { log: pino(options, stderr), numDropped: 0, close: async () => {} };

  // NOTE: neither synchronous nor `flushSync`: both wait forever on a full disk. Touching `stderr`
  // has made a pipe non-blocking, so that none of Node's threads waits for its reader.
  const stream = new sonicBoom.SonicBoom({ fd, sync: false, maxLength: MAX_WAITING_BYTES });
  let numDropped = 0;
  let isOver = false;
  stream.on("drop", () => numDropped++);
  // A failed write is tried again with the next line, unless the reader has gone.
  stream.on("error", ({ code }: NodeJS.ErrnoException) => {
    isOver ||= code === "EPIPE";
  });
  const write = (line: string) => {
    if (isOver) numDropped++;
    else stream.write(line);
  };
  return {
    log: pino(options, { write }),
    get numDropped() {
      return numDropped;
    },
    async close() {
      if (isOver) return;
      isOver = true;
      const closed = once(stream, "close").catch(() => {});
      stream.end();
      await Promise.race([closed, delay(CLOSE_MS)]);
    },
  };
}
