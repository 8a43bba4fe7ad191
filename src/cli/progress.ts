/** The compiler's progress on stderr: one line that is rewritten on a terminal, a few lines elsewhere. */
import type { CompileProgress } from "../compiler/compile.ts";
import type { Terminal } from "./terminal.ts";

const REDRAW_MS = 50;
/** Lines in a log, as shares of the whole. */
const LOGGED_STEPS = 4;

/** A listener for `ensureArtifact` and `compileModel`. */
export function showProgress(stderr: Terminal["stderr"], now: () => number): (progress: CompileProgress) => void {
  let drawnAtMs = Number.NEGATIVE_INFINITY;
  let numLogged = -1;
  return ({ done, total, message }) => {
    const isEnd = done >= total;
    const percent = total > 0 ? Math.floor((done / total) * 100) : 100;
    if (stderr.isTTY) {
      if (!isEnd && now() - drawnAtMs < REDRAW_MS) return;
      drawnAtMs = now();
      stderr.write(`\r${message}: ${percent}%${isEnd ? "\n" : ""}`);
      return;
    }
    const step = isEnd ? LOGGED_STEPS : Math.min(LOGGED_STEPS - 1, Math.floor((percent / 100) * LOGGED_STEPS));
    if (step <= numLogged) return;
    numLogged = step;
    stderr.write(`${message}: ${percent}%\n`);
  };
}
