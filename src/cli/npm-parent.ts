/**
 * `npx densemamba serve` is npm, which starts a shell, which starts us. A signal to npm ends the shell, and nobody tells us: we
 * notice that our parent has gone.
 */

export interface NpmFacts {
  /** What npm's shell was given; undefined where npm did not start us. */
  readonly script: string | undefined;
  readonly parentId: () => number;
  /** Calls back repeatedly, without keeping the process alive. @returns a function that ends that */
  readonly repeat: (act: () => void) => () => void;
}

const CHECK_MS = 250;
/** The script runs us in the background, so the end of its shell means nothing. */
const IN_BACKGROUND = /(?:^|[^&])&(?:[^&]|$)/;

/** Resolves when the shell that npm started us in has gone; never, where there is none to wait for. */
export function untilNpmHasGone({ script, parentId, repeat }: NpmFacts): Promise<"npm has gone"> {
  return new Promise((resolve) => {
    if (script === undefined || IN_BACKGROUND.test(script)) return;
    const parent = parentId();
    const stop = repeat(() => {
      if (parentId() === parent) return;
      stop();
      resolve("npm has gone");
    });
  });
}

export function thisProcess(script: string | undefined): NpmFacts {
  return {
    script,
    parentId: () => process.ppid,
    repeat: (act) => {
      const timer = setInterval(act, CHECK_MS).unref();
      return () => clearInterval(timer);
    },
  };
}
