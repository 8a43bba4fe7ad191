#!/usr/bin/env node
/** The program: parses the command line, runs the command, and turns errors into an exit code. */
import { closeSync, fstatSync } from "node:fs";
import { isatty } from "node:tty";
import type { CommanderError } from "commander";
import type { SignalSource } from "../app/shutdown.ts";
import { describeFailure } from "./failure.ts";
import { requireOpenFiles } from "./open-files.ts";

// A reader that stops early (`densemamba generate … | head`) is no failure.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0);
  throw error;
});
// A message that cannot be written, e.g. to a closed terminal, is no reason to end.
process.stderr.on("error", () => {});

const signals = signalsOf(process);
const exitCode = await run().then(() => 0, exitCodeOf);
closeLostTerminal();
signals.exit(exitCode);

async function run(): Promise<void> {
  requireOpenFiles();
  // Not at the top: Node opens all imports at once, and may have too few files for that.
  const [{ createProgram }, { programVersion }] = await Promise.all([
    import("./program.ts"),
    import("../config/process.ts"),
  ]);
  await createProgram({ version: programVersion(), terminal: process, signals }).parseAsync();
}

/**
 * `exit` waits for no thread, where signals are heard at all. It is loaded early: with all threads
 * busy nothing can be loaded.
 */
function signalsOf(source: SignalSource): SignalSource {
  let exit = (code: number) => source.exit(code);
  const loadExit = async () => {
    exit = (await import("../runtime/native/libc.ts")).exitAtOnce;
  };
  return {
    on(event: string, listener: (reason: unknown) => void) {
      void loadExit().catch(() => {});
      return source.on(event as "unhandledRejection", listener);
    },
    exit: (code) => exit(code),
  };
}

/** Otherwise Node aborts when it cannot restore the settings of a terminal that has been closed. */
function closeLostTerminal(): void {
  for (const descriptor of [0, 1, 2]) {
    if (!isatty(descriptor) && fstatSync(descriptor).isCharacterDevice()) closeSync(descriptor);
  }
}

/** As usual 2 for mistakes on the command line; asking for help is not a mistake. */
function exitCodeOf(error: unknown): number {
  if (isCommanderError(error)) return error.exitCode === 0 ? 0 : 2;
  const { message, exitCode } = describeFailure(error);
  if (message !== undefined) process.stderr.write(`${message}\n`);
  return exitCode;
}

/** By its code: the class would have to be loaded. */
function isCommanderError(error: unknown): error is CommanderError {
  return error instanceof Error && "code" in error && String(error.code).startsWith("commander.");
}
