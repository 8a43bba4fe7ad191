import { describe, expect, it } from "vitest";
import { describeFailure } from "../../src/cli/failure.ts";
import { formatBytes, formatCount, showProgress } from "../../src/cli/terminal.ts";
import { DenseMambaError } from "../../src/errors.ts";
import { Gathered } from "./program-run.ts";

describe("progress", () => {
  function feed(isTTY: boolean): string {
    const stderr = Object.assign(new Gathered(), { isTTY });
    let nowMs = 0;
    const show = showProgress({ stderr }, { now: () => nowMs });
    for (let done = 1; done <= 200; done++) {
      nowMs += 1;
      show({ done, total: 200, message: "compiling" });
    }
    return stderr.text;
  }

  it("redraws one line on a terminal, not too often", () => {
    const text = feed(true);
    expect(text.split("\n")).toHaveLength(2);
    expect(text.split("\r").length).toBeLessThan(8);
    expect(text.slice(text.lastIndexOf("\r"))).toMatch(/^\rcompiling: █{24} 100% 200 B of 200 B, \d+ B\/s/);
    expect(text.endsWith("\u001b[K\n")).toBe(true);
  });

  it("reports each piece of work to its end, once", () => {
    const stderr = new Gathered();
    const show = showProgress({ stderr }, { now: () => 0 });
    for (const [done, message] of [
      [5, "pulling"],
      [10, "pulling"],
      [10, "pulling"],
      [10, "compiling"],
    ] as const) {
      show({ done, total: 10, message });
    }
    expect(stderr.text).toBe("pulling: 50%\npulling: 100%\ncompiling: 100%\n");
  });

  it("writes a few lines to a log", () => {
    expect(feed(false)).toBe("compiling: 0%\ncompiling: 25%\ncompiling: 50%\ncompiling: 75%\ncompiling: 100%\n");
  });
});

describe("failures", () => {
  it("are one line with their code; the exit code is 1", () => {
    const failure = describeFailure(new DenseMambaError("invalid_checkpoint", "no config.json"));
    expect(failure).toEqual({ message: "error: invalid_checkpoint: no config.json", exitCode: 1 });
    const missing = Object.assign(new Error("EACCES: permission denied, mkdir '/x'"), { code: "EACCES" });
    expect(describeFailure(missing)).toEqual({ message: "error: EACCES: permission denied, mkdir '/x'", exitCode: 1 });
  });

  it("of a folder that another server holds have an exit code of their own", () => {
    const failure = describeFailure(new DenseMambaError("store_in_use", "/x is in use"));
    expect(failure).toEqual({ message: "error: store_in_use: /x is in use", exitCode: 75 });
  });

  it("list all problems of a configuration; the exit code is 2", () => {
    const failure = describeFailure(new DenseMambaError("invalid_config", "a is wrong\nb is wrong"));
    expect(failure).toEqual({
      message: "error: invalid_config: 2 problems\n  a is wrong\n  b is wrong",
      exitCode: 2,
    });
  });

  it("show the stack of our own bugs", () => {
    expect(describeFailure(new TypeError("x is undefined")).message).toContain("terminal.test.ts");
  });
});

describe("readable numbers", () => {
  it.each([
    [0, "0 B"],
    [1023, "1023 B"],
    [233_472, "228 KiB"],
    [2 ** 30, "1 GiB"],
    [1.5 * 2 ** 20, "1.5 MiB"],
    [12.34 * 2 ** 20, "12.3 MiB"],
  ])("%i bytes are %s", (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });

  it.each([
    [999, "999"],
    [3_865_344, "3.87M"],
    [129_135_360, "129M"],
    [2.8e9, "2.8B"],
  ])("%i is %s", (count, text) => {
    expect(formatCount(count)).toBe(text);
  });
});
