#!/usr/bin/env node
/** The program `densemamba`. Parses the command line, runs the command, turns what it throws into an exit code. */
import { CommanderError } from "commander";
import { describeFailure } from "./failure.ts";
import { createProgram } from "./program.ts";
import { programVersion } from "./version.ts";

/** What commander calls a mistake on the command line ends with 2, as is usual; asking for help is none. */
function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  const { message, exitCode } = describeFailure(error);
  process.stderr.write(`${message}\n`);
  return exitCode;
}

// A reader that has seen enough (`densemamba generate … | head`) is no failure.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0);
  throw error;
});

const program = createProgram({ version: programVersion(), terminal: process, signals: process });
const exitCode = await program.parseAsync().then(() => 0, exitCodeOf);
process.exit(exitCode);
