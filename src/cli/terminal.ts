/** What a command reads from and writes to, with progress bars and numbers in a readable form. */
import type { Readable, Writable } from "node:stream";
import type { CompileProgress } from "../compiler/compile.ts";

/** `process` in the program, plain streams in tests. */
export interface Terminal {
  readonly stdin: Readable;
  readonly stdout: Writable & { readonly isTTY?: boolean };
  readonly stderr: Writable & { readonly isTTY?: boolean; readonly fd?: number };
}

/** @throws what the stream throws */
export async function readAll(stream: Readable): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks).toString("utf8");
}

/** Resolves when the text is taken: a slow or closed pipe makes the producer wait. */
export function write(stream: Writable, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    stream.write(text, (error) => (error ? reject(error) : resolve()));
  });
}

const REDRAW_MS = 50;
const BAR_CELLS = 24;
/** Lines in a log, as shares of the whole. */
const LOGGED_STEPS = 4;

export interface ProgressOptions {
  /** Milliseconds, monotonic. */
  readonly now?: () => number;
  /** Where there is no terminal. Default: to stderr. */
  readonly writeLine?: (line: string) => void;
}

/**
 * A listener to the progress of compiling or pulling that writes to stderr: one line that is
 * redrawn on a terminal, a few lines elsewhere. A new message starts again.
 */
export function showProgress(
  { stderr }: Pick<Terminal, "stderr">,
  { now = () => performance.now(), writeLine = (line) => void stderr.write(`${line}\n`) }: ProgressOptions = {},
): (progress: CompileProgress) => void {
  let current: string | undefined;
  let drawnAtMs = 0;
  let startedAtMs = 0;
  let startedAtBytes = 0;
  let numLogged = -1;
  let hasEnded = false;
  return ({ done, total, message }) => {
    if (message !== current) {
      current = message;
      drawnAtMs = Number.NEGATIVE_INFINITY;
      startedAtMs = now();
      startedAtBytes = done;
      numLogged = -1;
      hasEnded = false;
    }
    if (hasEnded) return;
    hasEnded = done >= total;
    const share = total > 0 ? Math.min(1, done / total) : 1;
    const percent = `${Math.floor(share * 100)}%`;
    if (stderr.isTTY) {
      if (!hasEnded && now() - drawnAtMs < REDRAW_MS) return;
      drawnAtMs = now();
      const filled = Math.round(share * BAR_CELLS);
      const bar = "█".repeat(filled) + "░".repeat(BAR_CELLS - filled);
      const rate = (done - startedAtBytes) / Math.max(1, (now() - startedAtMs) / 1000);
      const figures = `${formatBytes(done)} of ${formatBytes(total)}, ${formatBytes(rate)}/s`;
      stderr.write(`\r${message}: ${bar} ${percent} ${figures}${CLEAR_REST}${hasEnded ? "\n" : ""}`);
      return;
    }
    const step = hasEnded ? LOGGED_STEPS : Math.min(LOGGED_STEPS - 1, Math.floor(share * LOGGED_STEPS));
    if (step <= numLogged) return;
    numLogged = step;
    writeLine(`${message}: ${percent}`);
  };
}

/** Erases what is left of a longer line before. */
export const CLEAR_REST = "\u001b[K";

/** 1536 → `1.5 KiB` */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const step = bytes < 1024 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10));
  const value = bytes / 1024 ** step;
  return `${step === 0 || value >= 100 ? Math.round(value) : Number(value.toFixed(value >= 10 ? 1 : 2))} ${units[step]}`;
}

/** 3870000 → `3.87M` */
export function formatCount(count: number): string {
  for (const [size, letter] of [
    [1e9, "B"],
    [1e6, "M"],
    [1e3, "k"],
  ] as const) {
    if (count >= size) return `${Number((count / size).toPrecision(3))}${letter}`;
  }
  return String(count);
}
