/** Other people's programs: what they print, how they fail, and that nothing of them is left behind. */
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { constants, tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { runTool } from "../../src/bench/peers/tool.ts";

const node = (script: string, options = {}) => runTool(process.execPath, ["-e", script], options);

describe("a tool", () => {
  it("gives what it printed on stdout, and logs both of its outputs", async () => {
    const dir = await mkdtemp(path.join(tmpdir(), "tool-"));
    try {
      const logFile = path.join(dir, "log");
      expect(await node('console.log("out"); console.error("err")', { logFile })).toBe("out\n");
      const lines = async () => (await readFile(logFile, "utf8")).split("\n").toSorted();
      await expect.poll(lines).toEqual(["", "err", "out"]);
    } finally {
      await rm(dir, { recursive: true });
    }
  });

  it("that fails tells its last words, and one that is not there its name", async () => {
    await expect(node('console.error("no compiler"); process.exit(3)')).rejects.toThrow(/ended with 3:\nno compiler/);
    await expect(runTool("no-such-tool-anywhere", [])).rejects.toThrow("no-such-tool-anywhere");
  });

  it("runs at the lowest priority if it is asked to", async () => {
    // The priority is set from outside, a moment after the start.
    const script = `const timer = setInterval(() => {
      if (os.getPriority() === ${constants.priority.PRIORITY_LOW}) { console.log("low"); clearInterval(timer); }
    }, 1)`;
    expect(await node(script, { lowPriority: true })).toBe("low\n");
  });

  it("ends with the bench, even in a session of its own", async () => {
    const tool = JSON.stringify(path.resolve("src/bench/peers/tool.ts"));
    const inner = JSON.stringify("console.log(process.pid); setInterval(() => {}, 1000)");
    const script = `import { runTool } from ${tool};
      setTimeout(() => process.exit(0), 60_000).unref();
      const logFile = process.argv[1];
      await runTool(process.execPath, ["-e", ${inner}], { lowPriority: true, logFile });`;
    const dir = await mkdtemp(path.join(tmpdir(), "tool-"));
    const logFile = path.join(dir, "log");
    const bench = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", script, logFile], {
      stdio: ["ignore", "ignore", "inherit"],
    });
    try {
      await expect.poll(() => readFile(logFile, "utf8").catch(() => ""), { timeout: 30_000 }).toMatch(/\d+\n/);
      const pid = Number(/\d+/.exec(await readFile(logFile, "utf8"))![0]);
      expect(isAlive(pid)).toBe(true);
      const ended = new Promise((resolve) => bench.once("exit", resolve));
      bench.kill("SIGTERM");
      await ended;
      await expect.poll(() => isAlive(pid), { timeout: 10_000 }).toBe(false);
    } finally {
      bench.kill("SIGKILL");
      await rm(dir, { recursive: true });
    }
  });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
