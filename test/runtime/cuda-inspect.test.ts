/**
 * Machines on which CUDA cannot be had, each for a reason of its own: made of libraries that say
 * what those of such a machine say.
 */
import { existsSync } from "node:fs";
import { mkdir, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { inspectCuda } from "../../src/runtime/native/cuda-inspect.ts";
import { deviceCodeOf, nameOf, runsOn } from "../../src/runtime/native/device-code.ts";
import { loadSharedLibrary } from "../../src/runtime/native/shared-library.ts";
import { ortPackageVersion } from "../../src/runtime/ort-library.ts";
import { buildDriver, buildEmptyLibrary, buildFakeProvider } from "../cuda-device/build.ts";
import { hasProvider, PROVIDER } from "../cuda-device/simulated-cuda.ts";
import { temporaryFolder } from "../helpers/checkpoints.ts";
import { canEmulateCuda } from "../helpers/emulated-cuda.ts";

const VERSION = ortPackageVersion();
const CUDA_13 = ["libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcudart.so.13"];
const CUDA_12 = ["libcublasLt.so.12", "libcublas.so.12", "libcurand.so.10", "libcudart.so.12"];

/** Of a file, as a download that was broken off leaves it. */
async function halve(file: string): Promise<void> {
  await truncate(file, Math.floor((await stat(file)).size / 2));
}

describe.runIf(canEmulateCuda && process.arch === "x64")("what there is of CUDA", () => {
  let folder: string;
  beforeEach(() => {
    folder = temporaryFolder();
  });
  afterEach(async () => {
    for (const name of Object.keys(process.env)) if (name.startsWith("SIMULATED_")) delete process.env[name];
    await rm(folder, { recursive: true });
  });

  const inspect = (ortLibrary = path.join(folder, "provider", "libonnxruntime.so.1")) =>
    inspectCuda({
      ortLibrary,
      ortVersion: VERSION,
      libraryPath: `/nowhere:${folder}`,
      // The system's loader, of a machine that has this folder's libraries.
      load(soname) {
        const file = path.join(folder, soname);
        if (existsSync(file)) return loadSharedLibrary(file);
        throw new Error("cannot open shared object file: No such file or directory");
      },
    });

  it("is a device where all is there", async () => {
    await buildDriver(folder);
    await buildFakeProvider(folder, { version: VERSION, needed: CUDA_13 });
    process.env.SIMULATED_CAPABILITY = "75";
    expect(await inspect()).toEqual({ isUsable: true, device: { name: "Simulated device", capability: 75 } });
  });

  it.each([75, 80, 87, 90, 121])("is usable if the provider's code runs on the device, sm_%i", async (capability) => {
    await buildDriver(folder);
    await buildFakeProvider(folder, { version: VERSION, needed: CUDA_13, capabilities: [75, 80, 86, 90, 120] });
    process.env.SIMULATED_CAPABILITY = String(capability);
    expect(await inspect()).toMatchObject({ isUsable: true, device: { capability } });
  });

  it("is read from a provider's code: machine code of its generation, PTX for whatever is later", () => {
    const code = [
      { isPtx: false, capability: 86 },
      { isPtx: true, capability: 90 },
    ];
    const usable = (capability: number) => code.some((part) => runsOn(part, capability));
    expect([75, 80, 86, 89, 90, 100].map(usable)).toEqual([false, false, true, true, true, true]);
    expect(code.map(nameOf)).toEqual(["sm_86", "compute_90"]);
  });

  const machines: {
    name: string;
    make: () => Promise<unknown>;
    problem: string | RegExp;
    found: string[];
    needed?: string[];
  }[] = [
    {
      name: "no provider's library",
      make: () => buildDriver(folder),
      problem: "this ONNX Runtime has no CUDA provider",
      found: ["an NVIDIA driver for CUDA 13.0 (Simulated device, sm_90)", "no CUDA provider", "no library of CUDA"],
      needed: ["the libraries of CUDA 13"],
    },
    {
      name: "a provider of another ONNX Runtime",
      make: async () => {
        await buildDriver(folder);
        await buildFakeProvider(folder, { version: "1.29.1", needed: CUDA_13 });
      },
      problem: `the CUDA provider is not that of ONNX Runtime ${VERSION}`,
      found: ["the CUDA provider of ONNX Runtime 1.29.1", "libcudart.so.13"],
    },
    {
      name: "a provider that is cut off",
      make: async () => {
        await buildDriver(folder);
        await mkdir(path.join(folder, "provider"));
        await writeFile(path.join(folder, "provider", "libonnxruntime_providers_cuda.so"), "\x7fELF\x02\x01");
      },
      problem: /libonnxruntime_providers_cuda\.so cannot be read: it is cut off/,
      found: ["a CUDA provider that cannot be read"],
      needed: ["the libraries of CUDA 13"],
    },
    {
      name: "a provider that is cut off at its end",
      make: async () => {
        await buildDriver(folder);
        await buildFakeProvider(folder, { version: VERSION, needed: CUDA_13 });
        await halve(path.join(folder, "provider", "libonnxruntime_providers_cuda.so"));
      },
      problem: /libonnxruntime_providers_cuda\.so cannot be read: it is cut off: \d+ bytes, not \d+/,
      found: ["a CUDA provider that cannot be read"],
      needed: ["the libraries of CUDA 13"],
    },
    {
      name: "one of the provider's two libraries",
      make: async () => {
        await buildDriver(folder);
        await buildFakeProvider(folder, { version: VERSION, needed: CUDA_13 });
        await rm(path.join(folder, "provider", "libonnxruntime_providers_shared.so"));
      },
      problem: "libonnxruntime_providers_shared.so is not beside the CUDA provider",
      found: [`the CUDA provider of ONNX Runtime ${VERSION}`],
    },
    {
      name: "one of the provider's two libraries cut off",
      make: async () => {
        await buildDriver(folder);
        await buildFakeProvider(folder, { version: VERSION, needed: CUDA_13 });
        await halve(path.join(folder, "provider", "libonnxruntime_providers_shared.so"));
      },
      problem: /libonnxruntime_providers_shared\.so beside it: it is cut off/,
      found: ["a CUDA provider that cannot be read"],
      needed: ["the libraries of CUDA 13"],
    },
    {
      name: "a device that the provider has no code for",
      make: async () => {
        await buildDriver(folder);
        await buildFakeProvider(folder, { version: VERSION, needed: CUDA_13, capabilities: [75, 80, 90, 120] });
        process.env.SIMULATED_CAPABILITY = "100";
      },
      problem: "the CUDA provider has no code for sm_100",
      found: ["(Simulated device, sm_100)"],
      needed: ["a device that runs the provider's code, sm_75, sm_80, sm_90, sm_120"],
    },
    {
      name: "a device that is too old for the provider",
      make: async () => {
        await buildDriver(folder);
        await buildFakeProvider(folder, { version: VERSION, needed: CUDA_13, capabilities: [75, 80, 90, 120] });
        process.env.SIMULATED_CAPABILITY = "70";
      },
      problem: "the CUDA provider has no code for sm_70",
      found: ["(Simulated device, sm_70)"],
    },
    {
      name: "a library of CUDA that is cut off",
      make: async () => {
        await buildDriver(folder);
        await buildFakeProvider(folder, { version: VERSION, needed: CUDA_13 });
        await halve(path.join(folder, "libcublasLt.so.13"));
        await writeFile(path.join(folder, "libcurand.so.10"), "\x7fEL");
      },
      problem: "libcublasLt.so.13, libcurand.so.10 cannot be loaded",
      found: [
        "libcudart.so.13, libcublas.so.13",
        "libcublasLt.so.13 does not load (",
        "libcublasLt.so.13 cannot be read: it is cut off",
        "libcurand.so.10 cannot be read: it is cut off: 3 bytes, not 64",
      ],
    },
    {
      name: "a file that is no library in a library's place",
      make: async () => {
        await buildDriver(folder);
        await buildFakeProvider(folder, { version: VERSION, needed: CUDA_13 });
        await rm(path.join(folder, "libcublas.so.13"));
        await mkdir(path.join(folder, "libcublas.so.13"));
        await writeFile(path.join(folder, "libcudart.so.13"), "x".repeat(100));
      },
      problem: "libcudart.so.13, libcublas.so.13 cannot be loaded",
      found: ["libcudart.so.13 cannot be read: it is no ELF file", "libcublas.so.13 cannot be read: EISDIR"],
    },
    {
      name: "the libraries of a later CUDA alone",
      make: async () => {
        await buildDriver(folder);
        await buildFakeProvider(folder, { version: VERSION, needed: CUDA_13 });
        for (const name of CUDA_13) await rm(path.join(folder, name));
        await buildEmptyLibrary(folder, "libcudart.so.14");
      },
      problem: "libcudart.so.13, libcublasLt.so.13, libcublas.so.13, libcurand.so.10 cannot be loaded",
      found: ["; libcudart.so.14"],
    },
    {
      name: "something else in the driver's place",
      make: async () => {
        await buildEmptyLibrary(folder, "libcuda.so.1");
        await buildFakeProvider(folder, { version: VERSION, needed: CUDA_13 });
      },
      problem: "libcuda.so.1 is not an NVIDIA driver's",
      found: ["libcuda.so.1, but: Cannot find function 'cuDriverGetVersion'"],
    },
    {
      name: "a driver's library that is cut off",
      make: async () => {
        await buildDriver(folder);
        await halve(path.join(folder, "libcuda.so.1"));
        await buildFakeProvider(folder, { version: VERSION, needed: CUDA_13 });
      },
      problem: "there is no NVIDIA driver",
      found: ["libcuda.so.1 cannot be read: it is cut off"],
    },
    {
      name: "the libraries of CUDA 12",
      make: async () => {
        await buildDriver(folder);
        await buildFakeProvider(folder, { version: VERSION, needed: CUDA_13 });
        for (const name of CUDA_13) await rm(path.join(folder, name));
        for (const name of CUDA_12) await buildEmptyLibrary(folder, name);
      },
      problem: "libcudart.so.13, libcublasLt.so.13, libcublas.so.13 cannot be loaded",
      found: [`the CUDA provider of ONNX Runtime ${VERSION}`, "libcurand.so.10, libcudart.so.12"],
    },
    {
      name: "no driver",
      make: () => buildFakeProvider(folder, { version: VERSION, needed: CUDA_13 }),
      problem: "there is no NVIDIA driver",
      found: [
        "no NVIDIA driver (libcuda.so.1: cannot open shared object file: No such file or directory)",
        "libcudart.so.13",
      ],
    },
    {
      name: "a driver that is too old",
      make: async () => {
        await buildDriver(folder);
        await buildFakeProvider(folder, { version: VERSION, needed: CUDA_13 });
        process.env.SIMULATED_DRIVER_VERSION = "12080";
      },
      problem: "the NVIDIA driver is too old for CUDA 13",
      found: ["an NVIDIA driver for CUDA 12.8 (Simulated device, sm_90)"],
    },
    {
      name: "a driver that does not start",
      make: async () => {
        await buildDriver(folder);
        await buildFakeProvider(folder, { version: VERSION, needed: CUDA_13 });
        process.env.SIMULATED_DRIVER_ERROR = "803";
      },
      problem:
        "the NVIDIA driver does not start: system has unsupported display driver / cuda driver combination (error 803)",
      found: ["an NVIDIA driver for CUDA 13.0 (system has unsupported"],
    },
    {
      name: "a driver without a device",
      make: async () => {
        await buildDriver(folder);
        await buildFakeProvider(folder, { version: VERSION, needed: CUDA_13 });
        process.env.SIMULATED_DRIVER_DEVICES = "0";
      },
      problem: "the NVIDIA driver has no device",
      found: ["an NVIDIA driver for CUDA 13.0 without a device"],
    },
  ];

  it.each(machines)("is said of a machine with $name", async ({ make, problem, found, needed = CUDA_13 }) => {
    await make();
    const report = await inspect();
    if (report.isUsable) throw new Error("usable");
    if (typeof problem === "string") expect(report.problem).toBe(problem);
    else expect(report.problem).toMatch(problem);
    const [before, after] = report.details.split(". Needed: ");
    for (const text of found) expect(before).toContain(text);
    for (const text of ["an NVIDIA driver for CUDA 13.0 or later", `of ONNX Runtime ${VERSION} in`, ...needed])
      expect(after).toContain(text);
  });

  it.runIf(hasProvider)("has code for the devices that docs/gpu.md names, and no PTX for others", async () => {
    const code = await deviceCodeOf(PROVIDER);
    const names = code.map(nameOf).toSorted((a, b) => Number(a.slice(3)) - Number(b.slice(3)));
    expect(await readFile("docs/gpu.md", "utf8")).toContain(`machine code for ${names.join(", ")}`);
    expect([70, 100, 103].filter((capability) => code.some((part) => runsOn(part, capability)))).toEqual([]);
  });

  it.runIf(hasProvider)("is read from the real provider, in less than a second", async () => {
    const startMs = performance.now();
    const report = await inspect(path.resolve(".cache/cuda-provider/1.30.0/libonnxruntime.so.1"));
    expect(performance.now() - startMs).toBeLessThan(1000);
    expect(report).toMatchObject({
      problem:
        "there is no NVIDIA driver; libcudart.so.13, libcublasLt.so.13, libcublas.so.13, libcurand.so.10 cannot be loaded",
      details: expect.stringContaining("the CUDA provider of ONNX Runtime 1.30.0"),
    });
  });
});
