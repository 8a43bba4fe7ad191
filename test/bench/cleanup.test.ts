/**
 * Nothing that a benchmark starts or stores stays behind: scratch folders, and other programs,
 * which also have to report.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { constants, tmpdir } from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, it } from "vitest";
import { runTool } from "../../bench/peers/install.ts";
import { withScratchDir } from "../../src/bench/cleanup.ts";

const node = (script: string, options = {}) => runTool(process.execPath, ["-e", script], options);

describe("a scratch folder", () => {
  it("is removed when the suite fails, and leaves no listeners", async () => {
    const cacheDir = await mkdtemp(path.join(tmpdir(), "scratch-"));
    const numListeners = process.listenerCount("exit") + process.listenerCount("SIGINT");
    try {
      const fails = withScratchDir(cacheDir, "states", async (dir) => {
        await writeFile(path.join(dir, "state"), "kept");
        throw new Error("a suite that failed");
      });
      await expect(fails).rejects.toThrow("a suite that failed");
      expect(await readdir(path.join(cacheDir, "bench"))).toEqual([]);
      expect(process.listenerCount("exit") + process.listenerCount("SIGINT")).toBe(numListeners);
    } finally {
      await rm(cacheDir, { recursive: true });
    }
  });

  it("is removed after a signal", async () => {
    const cacheDir = await mkdtemp(path.join(tmpdir(), "scratch-"));
    const module = pathToFileURL(path.join(import.meta.dirname, "../../src/bench/cleanup.ts")).href;
    const script = `const { withScratchDir } = await import(${JSON.stringify(module)});
      await withScratchDir(${JSON.stringify(cacheDir)}, "states", () => new Promise((resolve) => {
        setTimeout(resolve, 60_000);
        console.log("in it");
      }));`;
    try {
      const child = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", script]);
      const exited = once(child, "exit");
      await once(child.stdout, "data");
      expect(await readdir(path.join(cacheDir, "bench"))).toHaveLength(1);
      child.kill("SIGTERM");
      await exited;
      expect(await readdir(path.join(cacheDir, "bench"))).toEqual([]);
    } finally {
      await rm(cacheDir, { recursive: true });
    }
  });
});

describe("another program", () => {
  it("gives its stdout, and both outputs are logged", async () => {
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

  it("that fails is reported with the end of its output, and one that is missing with its name", async () => {
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

  it("ends with the benchmark, even in a session of its own", async () => {
    const tool = JSON.stringify(path.resolve("bench/peers/install.ts"));
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
