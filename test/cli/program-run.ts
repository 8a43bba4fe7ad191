/** The program in this process, with collected output and signals that the test sends. */
import { EventEmitter } from "node:events";
import { Readable, Writable } from "node:stream";
import type { ShutdownSignal, SignalSource } from "../../src/app/shutdown.ts";
import { describeFailure } from "../../src/cli/failure.ts";
import { createProgram } from "../../src/cli/program.ts";

export interface ProgramRun {
  readonly stdout: Gathered;
  readonly stderr: Gathered;
  /** 0, or the code of the failure, whose message is then on stderr. */
  readonly exitCode: Promise<number>;
  send(signal: ShutdownSignal): void;
}

export class Gathered extends Writable {
  #text = "";

  get text(): string {
    return this.#text;
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#text += chunk.toString();
    this.emit("more");
    done();
  }

  /** The first match, as soon as it has been written. */
  async until(pattern: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      const match = pattern.exec(this.#text);
      if (match !== null) return match;
      await new Promise((resolve) => this.once("more", resolve));
    }
  }
}

export function runProgram(args: readonly string[], stdin = ""): ProgramRun {
  const stdout = new Gathered();
  const stderr = new Gathered();
  const emitter = new EventEmitter();
  const signals: SignalSource = {
    on: (event: string, listener: (reason: unknown) => void) => emitter.on(event, listener),
    exit: (code) => {
      throw new Error(`exit ${code}`);
    },
  };
  const program = createProgram({
    version: "1.2.3",
    terminal: { stdin: Readable.from([stdin]), stdout, stderr },
    signals,
  });
  const exitCode = program.parseAsync([...args], { from: "user" }).then(
    () => 0,
    (error) => {
      const { message, exitCode } = describeFailure(error);
      if (message !== undefined) stderr.write(`${message}\n`);
      return exitCode;
    },
  );
  return { stdout, stderr, exitCode, send: (signal) => emitter.emit(signal) };
}
