import { EventEmitter } from "node:events";
import { describe, expect, it } from "vitest";
import { type MachineFacts, usableCores } from "../../src/cli/cores.ts";
import { chooseDevices, choosePrecisions, type DeviceFacts } from "../../src/cli/device.ts";
import { describeFailure } from "../../src/cli/failure.ts";
import { memoryLimit, withinMemory } from "../../src/cli/memory.ts";
import { untilNpmHasGone } from "../../src/cli/npm-parent.ts";
import { observeSnapshots } from "../../src/cli/observed-runner.ts";
import { showProgress } from "../../src/cli/progress.ts";
import { untilSignal } from "../../src/cli/shutdown.ts";
import { formatBytes, formatCount } from "../../src/cli/units.ts";
import { loadConfig } from "../../src/config.ts";
import { DenseMambaError } from "../../src/errors.ts";
import type { CudaReport } from "../../src/runtime/open.ts";
import type { ModelRunner } from "../../src/runtime/runner.ts";
import { Gathered } from "./program-run.ts";

describe("the choice of a device", () => {
  const device = { name: "NVIDIA H100", capability: 90 };
  const missing = {
    isUsable: false,
    problem: "there is no NVIDIA driver",
    details: "found: none. Needed: one",
  } as const;
  const facts = (report: CudaReport | undefined): DeviceFacts => ({
    hasCudaProvider: () => true,
    inspectCuda: async () => report,
  });

  it("asks for nothing of CUDA when it is a CPU, and for no driver without a provider", async () => {
    const inspectCuda = () => Promise.reject(new Error("asked"));
    const choose = (wanted: "cpu" | "auto") => chooseDevices(wanted, { hasCudaProvider: () => false, inspectCuda });
    expect(await choose("cpu")).toEqual([{ device: "cpu", reason: "asked for" }]);
    expect(await choose("auto")).toEqual([{ device: "cpu", reason: "this ONNX Runtime has no CUDA provider" }]);
  });

  it("refuses CUDA where it is not to be had, and says what was found and is needed", async () => {
    await expect(chooseDevices("cuda", facts(missing))).rejects.toMatchObject({
      code: "device_unavailable",
      message: "device cuda is not available: there is no NVIDIA driver. Found: none. Needed: one",
    });
  });

  it("lets auto fall back to the CPU and says why, an explicit choice never", async () => {
    expect(await chooseDevices("auto", facts(missing))).toEqual([
      { device: "cpu", reason: "no CUDA: there is no NVIDIA driver. Found: none. Needed: one" },
    ]);
    for (const report of [{ isUsable: true, device } as const, undefined]) {
      const cuda = report?.device;
      expect(await chooseDevices("cuda", facts(report))).toMatchObject([{ device: "cuda", cuda }]);
      expect(await chooseDevices("auto", facts(report))).toMatchObject([{ device: "cuda", cuda }, { device: "cpu" }]);
    }
  });

  it("prefers 8 bits on a CPU only, and keeps to a precision that was asked for", () => {
    expect(choosePrecisions("auto", "cpu")).toEqual(["int8", "f32"]);
    expect(choosePrecisions("auto", "cuda")).toEqual(["f16", "f32"]);
    expect(choosePrecisions("f32", "cpu")).toEqual(["f32"]);
  });
});

describe("usable cores", () => {
  const machine = (numLogical: number, files: Record<string, string>): MachineFacts => ({
    numLogical,
    read: (path) => files[path],
  });
  const cpu = (socket: number, core: number) => `processor : 0\nphysical id\t: ${socket}\ncore id\t\t: ${core}\n`;
  const fourCores = [cpu(0, 0), cpu(0, 0), cpu(0, 1), cpu(0, 1), cpu(1, 0), cpu(1, 0), cpu(1, 1), cpu(1, 1)].join("\n");

  it("count the hyper-threads of a core once", () => {
    expect(usableCores(machine(8, { "/proc/cpuinfo": fourCores }))).toBe(4);
  });

  it("are no more than the processors that the process may run on", () => {
    expect(usableCores(machine(2, { "/proc/cpuinfo": fourCores }))).toBe(2);
  });

  it.each([
    ["version 2", { "/sys/fs/cgroup/cpu.max": "250000 100000\n" }, 2],
    ["version 2 without a quota", { "/sys/fs/cgroup/cpu.max": "max 100000\n" }, 4],
    ["version 2 with less than one CPU", { "/sys/fs/cgroup/cpu.max": "50000 100000\n" }, 1],
    [
      "version 1",
      { "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000\n", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n" },
      3,
    ],
    [
      "version 1 without a quota",
      { "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n" },
      4,
    ],
  ])("keep to a container's quota, cgroup %s", (_, files, cores) => {
    expect(usableCores(machine(8, { "/proc/cpuinfo": fourCores, ...files }))).toBe(cores);
  });

  it("are the logical processors where nothing more is known", () => {
    expect(usableCores(machine(3, {}))).toBe(3);
  });
});

describe("the memory of a process", () => {
  const GIB = 2 ** 30;
  const limitIn = (files: Record<string, string>) => memoryLimit({ totalBytes: 64 * GIB, read: (file) => files[file] });
  const max = `${GIB / 2}\n`;

  it.each<[string, Record<string, string>, number]>([
    ["nowhere", {}, 64 * GIB],
    ["version 2, in a container", { "/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": max }, GIB / 2],
    ["version 2, none", { "/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": "max\n" }, 64 * GIB],
    [
      "version 2, of a unit",
      {
        "/proc/self/cgroup": "0::/system.slice/dm.service\n",
        "/sys/fs/cgroup/system.slice/dm.service/memory.max": max,
      },
      GIB / 2,
    ],
    [
      "version 2, of the slice around it, where it is less",
      {
        "/proc/self/cgroup": "0::/a/b\n",
        "/sys/fs/cgroup/a/b/memory.max": `${4 * GIB}\n`,
        "/sys/fs/cgroup/a/b/memory.high": "max\n",
        "/sys/fs/cgroup/a/memory.high": max,
      },
      GIB / 2,
    ],
    [
      "version 1, of a container that sees its host's path",
      {
        "/proc/self/cgroup": "12:cpuset:/docker/x\n9:memory,hugetlb:/docker/x\n0::/\n",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": max,
      },
      GIB / 2,
    ],
    [
      "version 1, of a group",
      {
        "/proc/self/cgroup": "9:memory:/docker/x\n",
        "/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": max,
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
      },
      GIB / 2,
    ],
  ])("is what its control groups allow: %s", (_, files, limit) => {
    expect(limitIn(files)).toBe(limit);
  });

  const sized = (flags: Record<string, unknown>, limitBytes: number, modelBytes = 8 * 2 ** 20) => {
    const config = loadConfig({ flags, env: {}, findHome: () => "/home/me" });
    const { sessionBytes, prefixBytes } = withinMemory(config, { limitBytes, modelBytes, slotBytes: 10 * 2 ** 20 });
    return { sessionBytes, prefixBytes };
  };

  it("is shared out so that the rest has room, and states have their usual size where there is enough", () => {
    expect(sized({}, 64 * GIB)).toEqual({ sessionBytes: GIB, prefixBytes: GIB / 4 });
    const { sessionBytes, prefixBytes } = sized({}, GIB / 2);
    expect(sessionBytes + prefixBytes).toBeLessThan(GIB / 2 - 300 * 2 ** 20);
    expect(sessionBytes).toBeGreaterThan(64 * 2 ** 20);
    expect(sized({}, 4 * GIB, 2 * GIB).sessionBytes).toBeLessThan(0.7 * GIB);
    expect(sized({}, GIB / 8)).toEqual({ sessionBytes: 2 ** 24, prefixBytes: 2 ** 22 });
  });

  it("does not overrule who has said how much", () => {
    expect(sized({ sessionBytes: "3GiB", prefixBytes: 0 }, GIB / 2)).toEqual({ sessionBytes: 3 * GIB, prefixBytes: 0 });
  });
});

describe("the shell of npm", () => {
  async function ends(script: string | undefined): Promise<boolean> {
    let parent = 7;
    let check = () => {};
    let hasEnded = false;
    const repeat = (act: () => void) => {
      check = act;
      return () => {};
    };
    void untilNpmHasGone({ script, parentId: () => parent, repeat }).then(() => {
      hasEnded = true;
    });
    check();
    await Promise.resolve();
    expect(hasEnded).toBe(false);
    parent = 1;
    check();
    await Promise.resolve();
    return hasEnded;
  }

  it("takes us along, unless npm did not start us or its script was to leave us behind", async () => {
    expect(await ends("densemamba")).toBe(true);
    expect(await ends("npm run build && densemamba serve")).toBe(true);
    expect(await ends("densemamba serve & sleep 1")).toBe(false);
    expect(await ends(undefined)).toBe(false);
  });
});

describe("progress", () => {
  function feed(isTTY: boolean): string {
    const stderr = Object.assign(new Gathered(), { isTTY });
    let nowMs = 0;
    const show = showProgress(stderr, () => nowMs);
    for (let done = 1; done <= 200; done++) {
      nowMs += 1;
      show({ done, total: 200, message: "compiling" });
    }
    return stderr.text;
  }

  it("rewrites one line on a terminal, not more often than one can see", () => {
    const text = feed(true);
    expect(text.split("\n")).toHaveLength(2);
    expect(text.split("\r").length).toBeLessThan(8);
    expect(text.slice(text.lastIndexOf("\r"))).toMatch(/^\rcompiling: █{24} 100% 200 B of 200 B, \d+ B\/s/);
    expect(text.endsWith("\u001b[K\n")).toBe(true);
  });

  it("tells of each piece of work to its end, once", () => {
    const stderr = new Gathered();
    const show = showProgress(stderr, () => 0);
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
  it("are one line with their code, and 1", () => {
    const failure = describeFailure(new DenseMambaError("invalid_checkpoint", "no config.json"));
    expect(failure).toEqual({ message: "error: invalid_checkpoint: no config.json", exitCode: 1 });
    const missing = Object.assign(new Error("EACCES: permission denied, mkdir '/x'"), { code: "EACCES" });
    expect(describeFailure(missing)).toEqual({ message: "error: EACCES: permission denied, mkdir '/x'", exitCode: 1 });
  });

  it("list all problems of a configuration, and are 2", () => {
    const failure = describeFailure(new DenseMambaError("invalid_config", "a is wrong\nb is wrong"));
    expect(failure).toEqual({
      message: "error: invalid_config: 2 problems\n  a is wrong\n  b is wrong",
      exitCode: 2,
    });
  });

  it("show the stack of what is our own bug", () => {
    expect(describeFailure(new TypeError("x is undefined")).message).toContain("parts.test.ts");
  });
});

describe("signals", () => {
  it("ask for an orderly end at first, and end the process at the second", async () => {
    const emitter = new EventEmitter();
    const exits: number[] = [];
    const source = {
      on: (event: string, listener: (reason: unknown) => void) => emitter.on(event, listener),
      exit: (code: number) => void exits.push(code),
    };
    const first = untilSignal(source);
    emitter.emit("SIGTERM");
    expect(await first).toBe("SIGTERM");
    expect(exits).toEqual([]);
    // A terminal that closes sends one, and its shell another.
    emitter.emit("SIGHUP");
    expect(exits).toEqual([]);
    emitter.emit("SIGINT");
    expect(exits).toEqual([130]);
  });
});

describe("an observed runner", () => {
  it("tells how long a state's copies take and passes everything else on", async () => {
    let nowMs = 0;
    const calls: string[] = [];
    const runner = {
      numSlots: 3,
      description: "fake",
      readSlot: async (slot: number) => {
        nowMs += 4;
        return new Uint8Array([slot]);
      },
      writeSlot: async () => {
        nowMs += 2;
      },
      clearSlot: async (slot: number) => void calls.push(`clear ${slot}`),
      swapSlots: async (a: number, b: number) => void calls.push(`swap ${a} ${b}`),
      copySlot: async (from: number, to: number) => void calls.push(`copy ${from} ${to}`),
      close: async () => void calls.push("close"),
    } as unknown as ModelRunner;
    const observed: [string, number][] = [];
    const wrapped = observeSnapshots(
      runner,
      {
        onSnapshotCaptured: (ms) => observed.push(["captured", ms]),
        onSnapshotRestored: (ms) => observed.push(["restored", ms]),
      },
      () => nowMs,
    );
    expect(await wrapped.readSlot(7)).toEqual(new Uint8Array([7]));
    await wrapped.writeSlot(1, new Uint8Array());
    await wrapped.clearSlot(1);
    await wrapped.swapSlots(1, 2);
    await wrapped.copySlot(2, 1);
    await wrapped.close();
    expect(observed).toEqual([
      ["captured", 4],
      ["restored", 2],
    ]);
    expect(calls).toEqual(["clear 1", "swap 1 2", "copy 2 1", "close"]);
    expect([wrapped.numSlots, wrapped.description]).toEqual([3, "fake"]);
  });
});

describe("numbers for people", () => {
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
