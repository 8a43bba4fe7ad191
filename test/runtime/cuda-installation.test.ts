/**
 * The program with ONNX Runtime's CUDA provider, as a process of its own: without a driver, and on
 * the simulated device.
 */
import { execFile } from "node:child_process";
import { rm } from "node:fs/promises";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { SimulatedLibraries } from "../cuda-device/build.ts";
import { LAUNCH_FAILED, NO_KERNEL_IMAGE } from "../cuda-device/errors.ts";
import { Installation } from "../cuda-device/installation.ts";
import { hasProvider, simulatedLibraries } from "../cuda-device/simulated-cuda.ts";
import { randomCheckpoint, TINY_SHAPE } from "../helpers/checkpoints.ts";
import { PROGRAM } from "../helpers/program.ts";
import { DEFAULT_MODEL_DIR } from "../helpers/real-server.ts";
import { ServedProcess } from "../helpers/served-process.ts";

describe.runIf(hasProvider)("the program with a CUDA provider", () => {
  let installation: Installation;
  let libraries: SimulatedLibraries;
  let modelDir: string;
  beforeAll(async () => {
    [libraries, installation, modelDir] = await Promise.all([
      simulatedLibraries(),
      Installation.make(),
      randomCheckpoint({ ...TINY_SHAPE, vocabSize: 4096 }),
    ]);
  }, 240_000);
  afterAll(async () => {
    await Promise.all([installation.remove(), rm(modelDir, { recursive: true })]);
  });

  const model = () => ["--model", modelDir, "--cache-dir", `${installation.dir}/cache`];
  const start = (args: readonly string[], env = process.env): Promise<ServedProcess> => {
    const serve = ["serve", "--port", "0", ...model(), "--tokenizer", DEFAULT_MODEL_DIR];
    return ServedProcess.start(process.execPath, [...serve, ...args], { cwd: installation.dir, env });
  };

  it("refuses device cuda without a driver, and names driver, provider and CUDA's libraries", async () => {
    const command = [PROGRAM, "score", "--token-ids", "1,2", ...model(), "--device", "cuda"];
    const run = promisify(execFile)(process.execPath, command, { cwd: installation.dir });
    const { stderr } = await run.then(
      () => Promise.reject(new Error("it ran")),
      (error: { stderr: string }) => error,
    );
    expect(stderr).toContain("device cuda is not available: there is no NVIDIA driver");
    expect(stderr).toMatch(
      /Found: no NVIDIA driver \(libcuda\.so\.1: .*\); the CUDA provider of ONNX Runtime 1\.30\.0; /,
    );
    expect(stderr).toMatch(/Needed: an NVIDIA driver for CUDA 13\.0 or later; .*libcudart\.so\.13/);
  }, 60_000);

  it("falls back to the CPU with device auto, and says why", async () => {
    const server = await start(["--device", "auto", "--kernels", "off"]);
    expect(server.stderr).toMatch(
      /device cpu: no CUDA: there is no NVIDIA driver; .*Needed: an NVIDIA driver for CUDA 13\.0/,
    );
    expect(await server.stop()).toBe(0);
  }, 60_000);

  // Old bug: with ONNX Runtime's own operators alone it tried to open the device again for ever.
  it.each([
    { name: "our operators", own: true, args: [], lostIn: "cudaGraphLaunch:5" },
    { name: "ONNX Runtime's operators", own: false, args: ["--kernels", "off"], lostIn: "cudaLaunchKernel:200" },
  ])(
    "serves on a device by $name, and ends when it is lost for good, having told whoever waits",
    async ({ own, args, lostIn }) => {
      const device = ["--device", "cuda", ...(own ? ["--kernel-library", libraries.kernels] : []), ...args];
      const lost = { LD_LIBRARY_PATH: libraries.folder, SIMULATED_CUDA_LOST: `${lostIn}:${LAUNCH_FAILED}` };
      const server = await start(device, { ...process.env, ...lost });
      expect(server.stderr).toContain("device cuda: requested (Simulated device, sm_90)");
      const always = { temperature: 0, ignore_eos: true, logit_bias: { 1000: 100 } };
      const answer = await server.post("/v1/completions", { prompt: "Once", max_tokens: 100, ...always });
      expect(answer.status).toBe(500);
      const text = await answer.text();
      expect(text).toMatch(/the runtime failed: .*cudaError719/);
      expect(text).not.toMatch(/hostname|onnxruntime_src/);
      expect(await server.ended).toBe(1);
      expect(server.stderr).toContain("this process has lost the device and ends");
      expect(server.stderr).toMatch(/"errorCode":"device_unavailable",.*CUDA works again only in a new process/);
    },
    60_000,
  );

  it("has no code for the device in its library: says so, and runs ONNX Runtime's operators there", async () => {
    const device = ["--device", "cuda", "--kernel-library", libraries.kernels];
    const env = {
      LD_LIBRARY_PATH: libraries.folder,
      SIMULATED_CUDA_LOST: `cudaFuncGetAttributes:0:${NO_KERNEL_IMAGE}:once`,
    };
    const server = await start(device, { ...process.env, ...env });
    expect(server.stderr).toMatch(
      /plain ONNX in place of kernels: \S+ has no code for this device: no kernel image is available /,
    );
    expect(server.stderr).toContain("device cuda: requested (Simulated device, sm_90)");
    expect(await server.stop()).toBe(0);
  }, 60_000);
});
