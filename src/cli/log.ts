/**
 * The server's log: JSON lines on stderr. Whatever becomes of stderr (a full disk, a reader that has gone or has stopped
 * reading), the server goes on: lines wait up to a bound, and are dropped and counted beyond it.
 */
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { type Logger, pino } from "pino";
import sonicBoom from "sonic-boom";
import type { Config } from "../config.ts";
import type { Terminal } from "./terminal.ts";

const MAX_WAITING_BYTES = 256 * 1024;
/** Time for the last lines to be written. */
const CLOSE_MS = 500;

export interface ServerLog {
  readonly log: Logger;
  readonly numDropped: number;
  /** Later lines are dropped. Resolves when the last lines are written, or the time for them is over. */
  close(): Promise<void>;
}

export function openLog(level: Config["logLevel"], stderr: Terminal["stderr"]): ServerLog {
  const options = { level, base: null };
  const { fd } = stderr;
  if (fd === undefined) return { log: pino(options, stderr), numDropped: 0, close: async () => {} };

  // NOTE: neither synchronous nor `flushSync`: both wait for ever on a full disk. Touching `stderr` has made a pipe
  // non-blocking, so that none of Node's threads waits for its reader.
  const stream = new sonicBoom.SonicBoom({ fd, sync: false, maxLength: MAX_WAITING_BYTES });
  let numDropped = 0;
  let isOver = false;
  stream.on("drop", () => numDropped++);
  // What could not be written is tried again with the next line, unless there is nobody to read it.
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
