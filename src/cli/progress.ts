/** Progress on stderr: on a terminal a bar that is rewritten, elsewhere a few lines. */
import type { Terminal } from "./terminal.ts";
import { formatBytes } from "./units.ts";

/** As the compiler and the hub report it. */
export interface Progress {
  /** Bytes, of about `total`. */
  readonly done: number;
  readonly total: number;
  readonly message: string;
}

const REDRAW_MS = 50;
const BAR_CELLS = 24;
/** Lines in a log, as shares of the whole. */
const LOGGED_STEPS = 4;

/** A listener for `ensureArtifact`, `compileModel` and `pullModel`. A new message begins anew. */
export function showProgress(stderr: Terminal["stderr"], now: () => number): (progress: Progress) => void {
  let current: string | undefined;
  let drawnAtMs = 0;
  let begunAtMs = 0;
  let begunAtBytes = 0;
  let numLogged = -1;
  let hasEnded = false;
  return ({ done, total, message }) => {
    if (message !== current) {
      current = message;
      drawnAtMs = Number.NEGATIVE_INFINITY;
      begunAtMs = now();
      begunAtBytes = done;
      numLogged = -1;
      hasEnded = false;
    }
    if (hasEnded) return;
    const isEnd = done >= total;
    hasEnded = isEnd;
    const share = total > 0 ? Math.min(1, done / total) : 1;
    const percent = `${Math.floor(share * 100)}%`;
    if (stderr.isTTY) {
      if (!isEnd && now() - drawnAtMs < REDRAW_MS) return;
      drawnAtMs = now();
      const filled = Math.round(share * BAR_CELLS);
      const bar = "█".repeat(filled) + "░".repeat(BAR_CELLS - filled);
      const rate = (done - begunAtBytes) / Math.max(1, (now() - begunAtMs) / 1000);
      const figures = `${formatBytes(done)} of ${formatBytes(total)}, ${formatBytes(rate)}/s`;
      // The rest of a longer line is cleared.
      stderr.write(`\r${message}: ${bar} ${percent} ${figures}\u001b[K${isEnd ? "\n" : ""}`);
      return;
    }
    const step = isEnd ? LOGGED_STEPS : Math.min(LOGGED_STEPS - 1, Math.floor(share * LOGGED_STEPS));
    if (step <= numLogged) return;
    numLogged = step;
    stderr.write(`${message}: ${percent}\n`);
  };
}
