/** When the server has to end: a signal, or the end of the npm that started it. */

const SIGNAL_NUMBERS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;
export type ShutdownSignal = keyof typeof SIGNAL_NUMBERS;

/** The part of `process` that is used. */
export interface SignalSource {
  on(signal: ShutdownSignal, listener: () => void): unknown;
  on(event: "unhandledRejection", listener: (reason: unknown) => void): unknown;
  exit(code: number): void;
}

/**
 * Resolves at the first signal; the second one ends the process at once. Further SIGHUPs are
 * ignored: when a terminal closes, both the kernel and the shell send one.
 * @param onHangUp what SIGHUP does instead
 */
export function untilSignal(source: SignalSource, onHangUp?: () => void): Promise<ShutdownSignal> {
  return new Promise((resolve) => {
    let wasAsked = false;
    for (const signal of Object.keys(SIGNAL_NUMBERS) as ShutdownSignal[]) {
      source.on(signal, () => {
        if (signal === "SIGHUP" && onHangUp !== undefined) return onHangUp();
        if (wasAsked && signal !== "SIGHUP") source.exit(128 + SIGNAL_NUMBERS[signal]);
        wasAsked = true;
        resolve(signal);
      });
    }
  });
}

const PARENT_CHECK_MS = 250;
/** The script runs us in the background, so the end of its shell means nothing. */
const IN_BACKGROUND = /(?:^|[^&])&(?:[^&]|$)/;

export interface NpmFacts {
  /** What npm gave its shell to run; undefined if npm did not start us. */
  readonly script: string | undefined;
  readonly parentId: () => number;
  /**
   * Calls back repeatedly, without keeping the process alive.
   * @returns a function that stops that
   */
  readonly repeat: (act: () => void) => () => void;
}

/**
 * Resolves when the shell that npm started us in has ended; never if there is none. `npx densemamba
 * serve` is npm, which starts a shell, which starts us: a signal to npm ends the shell, and all we
 * can see is that our parent has changed.
 */
export function untilNpmEnds({ script, parentId, repeat }: NpmFacts): Promise<"npm has ended"> {
  return new Promise((resolve) => {
    if (script === undefined || IN_BACKGROUND.test(script)) return;
    const parent = parentId();
    const stop = repeat(() => {
      if (parentId() === parent) return;
      stop();
      resolve("npm has ended");
    });
  });
}

export function npmFacts(script: string | undefined): NpmFacts {
  return {
    script,
    parentId: () => process.ppid,
    repeat: (act) => {
      const timer = setInterval(act, PARENT_CHECK_MS).unref();
      return () => clearInterval(timer);
    },
  };
}
