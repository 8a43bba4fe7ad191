/**
 * Machines on which CUDA cannot be had, each for a reason of its own: made of libraries that say
 * what those of such a machine say.
 */
import { existsSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { inspectCuda } from "../../src/runtime/native/cuda-inspect.ts";
import { loadSharedLibrary } from "../../src/runtime/native/shared-library.ts";
import { ortPackageVersion } from "../../src/runtime/ort-library.ts";
import { buildDriver, buildEmptyLibrary, buildFakeProvider } from "../cuda-device/build.ts";
import { hasProvider } from "../cuda-device/simulated-cuda.ts";
import { temporaryFolder } from "../helpers/checkpoints.ts";
import { canEmulateCuda } from "../helpers/emulated-cuda.ts";

const VERSION = ortPackageVersion();
const CUDA_13 = ["libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcudart.so.13"];
const CUDA_12 = ["libcublasLt.so.12", "libcublas.so.12", "libcurand.so.10", "libcudart.so.12"];

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
