import { EventEmitter } from "node:events";
import { describe, expect, it } from "vitest";
import { chooseDevices, choosePrecisions, type DeviceFacts } from "../../src/app/device.ts";
import { memoryLimit, requireMemory, slotBytesOf, usableCores, withinMemory } from "../../src/app/machine.ts";
import { observeSnapshots } from "../../src/app/observers.ts";
import { untilNpmEnds, untilSignal } from "../../src/app/shutdown.ts";
import { loadConfig } from "../../src/config/load.ts";
import type { CudaReport } from "../../src/runtime/open.ts";
import type { ModelRunner } from "../../src/runtime/runner.ts";

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

  const wanted = (device: "cuda" | "auto") => ({ device, runtime: "native" }) as const;

  it("does not inspect CUDA for a CPU or without a provider", async () => {
    const inspectCuda = () => Promise.reject(new Error("inspected"));
    const choose = (device: "cpu" | "auto") =>
      chooseDevices({ device, runtime: "native" }, { hasCudaProvider: () => false, inspectCuda });
    expect(await choose("cpu")).toEqual([{ device: "cpu", reason: "requested" }]);
    expect(await choose("auto")).toEqual([{ device: "cpu", reason: "this ONNX Runtime has no CUDA provider" }]);
  });

  it("refuses CUDA if it is not available, and says what was found and what is needed", async () => {
    await expect(chooseDevices(wanted("cuda"), facts(missing))).rejects.toMatchObject({
      code: "device_unavailable",
      message: "device cuda is not available: there is no NVIDIA driver. Found: none. Needed: one",
    });
  });

  it("falls back to the CPU with auto and says why, never with an explicit choice", async () => {
    expect(await chooseDevices(wanted("auto"), facts(missing))).toEqual([
      { device: "cpu", reason: "no CUDA: there is no NVIDIA driver. Found: none. Needed: one" },
    ]);
    for (const report of [{ isUsable: true, device } as const, undefined]) {
      const cuda = report?.device;
      expect(await chooseDevices(wanted("cuda"), facts(report))).toMatchObject([{ device: "cuda", cuda }]);
      expect(await chooseDevices(wanted("auto"), facts(report))).toMatchObject([
        { device: "cuda", cuda },
        { device: "cpu" },
      ]);
    }
  });

  it("has no CUDA for the portable runner, which would move states over the bus twice a step", async () => {
    const portable = (device: "cuda" | "auto") =>
      chooseDevices(
        { device, runtime: "portable" },
        facts({ isUsable: true, device: { name: "H100", capability: 90 } }),
      );
    expect(await portable("auto")).toEqual([{ device: "cpu", reason: "the portable runner has no other" }]);
    await expect(portable("cuda")).rejects.toMatchObject({
      code: "invalid_config",
      message: "--device cuda needs --runtime native: the portable runner runs on the CPU",
    });
  });

  it("prefers 8 bits on a CPU only, unless a precision is given", () => {
    expect(choosePrecisions("auto", { device: "cpu" })).toEqual(["int8", "f32"]);
    expect(choosePrecisions("f32", { device: "cpu" })).toEqual(["f32"]);
  });

  it("takes bf16 on CUDA devices that multiply it, f16 on others, and refuses it on a CPU", () => {
    const on = (capability: number) => choosePrecisions("auto", { device: "cuda", cuda: { ...device, capability } });
    expect(on(80)).toEqual(["bf16"]);
    expect(on(120)).toEqual(["bf16"]);
    expect(on(75)).toEqual(["f16", "f32"]);
    // Compiled ahead of time, for a device that is not there.
    expect(choosePrecisions("auto", { device: "cuda" })).toEqual(["bf16"]);
    expect(() => choosePrecisions("bf16", { device: "cpu" })).toThrow(/--precision bf16 needs a CUDA device/);
    expect(() => choosePrecisions("bf16", { device: "cuda", cuda: { name: "Tesla T4", capability: 75 } })).toThrow(
      "bf16 needs a device of sm_80 or later, Tesla T4 is sm_75; f16 runs on it",
    );
  });
});

it("states on a device take none of this machine's memory", () => {
  const state = [{ name: "conv.0", shape: [3, 8], dtype: "f32" }] as const;
  expect(slotBytesOf({ device: "cpu", manifest: { state } }, 4)).toBe(4 * 3 * 8 * 4);
  expect(slotBytesOf({ device: "cuda", manifest: { state } }, 4)).toBe(0);
});

describe("usable cores", () => {
  const machine = (numLogical: number, files: Record<string, string>) => ({
    numLogical,
    read: (path: string) => files[path],
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
  ])("respect a container's quota, cgroup %s", (_, files, cores) => {
    expect(usableCores(machine(8, { "/proc/cpuinfo": fourCores, ...files }))).toBe(cores);
  });

  it("are the logical processors if nothing more is known", () => {
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

  it("is divided so that enough is left for the rest; with plenty of it, states get their usual size", () => {
    expect(sized({}, 64 * GIB)).toEqual({ sessionBytes: GIB, prefixBytes: GIB / 4 });
    const { sessionBytes, prefixBytes } = sized({}, GIB / 2);
    expect(sessionBytes + prefixBytes).toBeLessThan(GIB / 2 - 300 * 2 ** 20);
    expect(sessionBytes).toBeGreaterThan(64 * 2 ** 20);
    expect(sized({}, 4 * GIB, 2 * GIB).sessionBytes).toBeLessThan(0.7 * GIB);
    expect(sized({}, GIB / 8)).toEqual({ sessionBytes: 2 ** 24, prefixBytes: 2 ** 22 });
  });

  it("has to suffice for the program, the model, its slots and some states", () => {
    const MIB = 2 ** 20;
    const require = (flags: Record<string, unknown>, limitBytes: number) => () =>
      requireMemory(loadConfig({ flags, env: {} }), { limitBytes, modelBytes: 8 * MIB, slotBytes: 10 * MIB });
    expect(require({}, 210 * MIB)).not.toThrow();
    const all =
      "170 MiB for the program, 10 MiB for the model, 10 MiB for 32 slots (--max-batch), 20 MiB for stored states";
    expect(require({}, 209.5 * MIB)).toThrow(
      `this process may use 209 MiB of memory and needs at least 210 MiB: ${all}`,
    );
    expect(require({ sessionBytes: "1MiB", prefixBytes: 0 }, 191 * MIB)).not.toThrow();
    expect(require({ sessionBytes: "1GiB", prefixBytes: 0 }, 206 * MIB)).not.toThrow();
  });

  it("never overrides an explicit size", () => {
    expect(sized({ sessionBytes: "3GiB", prefixBytes: 0 }, GIB / 2)).toEqual({ sessionBytes: 3 * GIB, prefixBytes: 0 });
  });
});

describe("the shell that npm started", () => {
  async function ends(script: string | undefined): Promise<boolean> {
    let parent = 7;
    let check = () => {};
    let hasEnded = false;
    const repeat = (act: () => void) => {
      check = act;
      return () => {};
    };
    void untilNpmEnds({ script, parentId: () => parent, repeat }).then(() => {
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

  it("ends the server with it, unless npm did not start it or the script runs it in the background", async () => {
    expect(await ends("densemamba")).toBe(true);
    expect(await ends("npm run build && densemamba serve")).toBe(true);
    expect(await ends("densemamba serve & sleep 1")).toBe(false);
    expect(await ends(undefined)).toBe(false);
  });
});

describe("signals", () => {
  it("shut down cleanly at first, and end the process the second time", async () => {
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
  it("reports how long copying a state takes, and passes everything else on", async () => {
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
