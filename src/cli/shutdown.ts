/**
 * SIGTERM, SIGINT and SIGHUP: the first signal asks for an orderly end, the second ends the process at once. A second SIGHUP
 * is ignored: when a terminal closes, both the kernel and the shell send one.
 */

const SIGNAL_NUMBERS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;
export type ShutdownSignal = keyof typeof SIGNAL_NUMBERS;

/** The part of `process` that is used. */
export interface SignalSource {
  on(signal: ShutdownSignal, listener: () => void): unknown;
  on(event: "unhandledRejection", listener: (reason: unknown) => void): unknown;
  exit(code: number): void;
}

/** Resolves at the first signal. */
export function untilSignal(source: SignalSource): Promise<ShutdownSignal> {
  return new Promise((resolve) => {
    let asked = false;
    for (const signal of Object.keys(SIGNAL_NUMBERS) as ShutdownSignal[]) {
      source.on(signal, () => {
        if (asked && signal !== "SIGHUP") source.exit(128 + SIGNAL_NUMBERS[signal]);
        asked = true;
        resolve(signal);
      });
    }
  });
}
