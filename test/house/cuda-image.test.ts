/**
 * The CUDA image without a container engine: that its pinned versions and the documents agree; and,
 * in CI, its file tree, built by the Dockerfile's own steps, with nvcc, and run on the simulated
 * device of test/cuda-device/.
 */
import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, open, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { KERNELS_VERSION } from "../../src/model/artifact.ts";
import { deviceCodeOf, nameOf } from "../../src/runtime/native/device-code.ts";
import { readSharedObject } from "../../src/runtime/native/elf.ts";
import { openKernels } from "../../src/runtime/native/kernel-library.ts";
import { buildSimulatedDevice } from "../cuda-device/build.ts";
import { type BuiltStage, buildStages, folderBytes, parseDockerfile } from "./dockerfile.ts";
import { ImageServer } from "./image-server.ts";

const read = (file: string) => readFileSync(file, "utf8");
const stages = parseDockerfile(read("docker/Dockerfile.cuda"));
const last = stages.at(-1)!;
/** As the image has them: libcublas.so.13 and so on. */
const CUDA_LIBRARIES = [...read("docker/Dockerfile.cuda").matchAll(/\/lib\/(lib\w+\.so\.\d+)/g)].map(
  ([, name]) => name!,
);
const DRIVER = "libcuda.so.1";
const PROVIDER_FOLDER = "app/node_modules/onnxruntime-node/bin/napi-v6/linux/x64";

describe("what the CUDA image pins", () => {
  const files = readdirSync("docker").filter((name) => name.endsWith(".txt"));
  const pins = new Map(
    files.flatMap((file) =>
      [...read(`docker/${file}`).matchAll(/^([\w-]+)==([\d.]+)/gm)].map(([, name, version]) => [name!, version!]),
    ),
  );
  const release = (version: string) => version.split(".").slice(0, 2).join(".");

  it("is named with its hash", () => {
    for (const file of files) {
      const lines = read(`docker/${file}`)
        .split("\n")
        .filter((line) => line !== "" && !line.startsWith("#"));
      for (const line of lines) expect(line).toMatch(/^[\w-]+==[\d.]+ --hash=sha256:[0-9a-f]{64}$/);
    }
  });

  it("is of onnxruntime-node's version, and of one CUDA", () => {
    expect(pins.get("onnxruntime-gpu")).toBe(JSON.parse(read("package.json")).dependencies["onnxruntime-node"]);
    const [, cuda] = /^nvidia\/cuda:([\d.]+)-base-/.exec(last.image)!;
    const ofCuda = ["nvidia-cuda-runtime", "nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm"];
    for (const name of ofCuda) expect(release(pins.get(name)!), name).toBe(release(cuda!));
  });

  it("is what the simulated device is made for", () => {
    expect(read("test/cuda-device/fetch-provider.sh")).toContain("docker/cuda-libraries.txt");
    expect(read("test/cuda-device/simulated-cuda.ts")).toContain(
      `.cache/cuda-provider/${pins.get("onnxruntime-gpu")}"`,
    );
    for (const name of [...CUDA_LIBRARIES, DRIVER]) expect(read("test/cuda-device/build.ts")).toContain(`"${name}"`);
  });

  it.each(["docs/gpu.md", "docs/containers.md"])("is what %s says", (file) => {
    const text = read(file);
    const named = [...text.matchAll(/lib(?:cu|nv)\w+\.so\.\d+/g)].map(([name]) => name);
    expect(named.filter((name) => ![...CUDA_LIBRARIES, DRIVER].includes(name))).toEqual([]);
    for (const name of CUDA_LIBRARIES) expect(named).toContain(name);
    for (const [, version] of text.matchAll(/CUDA (\d+\.\d+)/g))
      expect(version).toBe(release(pins.get("nvidia-cuda-runtime")!));
  });

  // Old bug: bases of CUDA 12 with cuDNN under a provider that is linked with CUDA 13 and without
  // cuDNN.
  it.each(["docker/Dockerfile.cuda", "README.md", "openapi.yaml", "docs/containers.md", "docs/configuration.md"])(
    "has another CUDA or cuDNN nowhere in %s",
    (file) => {
      expect(read(file).match(/cuda[ :_-]?(?!13)\d+|(?<!(?:no|without) )cudnn/gi) ?? []).toEqual([]);
    },
  );
});

// Downloads 900 MB and compiles the kernels for five architectures, the first time: two minutes.
describe.runIf(process.env.CI && process.platform === "linux" && process.arch === "x64")(
  "the CUDA image's tree",
  () => {
    let folder: string;
    let image: BuiltStage;
    const servers: ImageServer[] = [];
    const start = (env: Readonly<Record<string, string>>): ImageServer => {
      const server = new ImageServer(last, image, env);
      servers.push(server);
      return server;
    };
    const inTree = (file: string) => path.join(image.root, file);

    beforeAll(async () => {
      folder = await mkdtemp(path.join(tmpdir(), "densemamba-cuda-image-"));
      image = await buildStages(stages, { context: ".", folder });
    }, 1_200_000);
    afterEach(() => {
      for (const server of servers.splice(0)) server.kill();
    });
    afterAll(() => rm(folder, { recursive: true, force: true }));

    it("lacks no library but the driver's", async () => {
      const missing = new Set<string>();
      for (const file of await binaries(image.root)) {
        for (const [name, found] of await linked(file, inTree("app/cuda"))) {
          if (found === undefined) missing.add(name);
          // What this machine has of CUDA must not stand in for what the image lacks.
          else if (/^lib(cu|nv|onnx)/.test(name))
            expect(found.startsWith(image.root), `${file}: ${name} => ${found}`).toBe(true);
        }
      }
      expect([...missing]).toEqual([DRIVER]);
    });

    it("holds the kernels for sm_80, 90, 100 and 120, and PTX for the others", async () => {
      const code = await deviceCodeOf(inTree("app/library/libdensemamba-cuda.so"));
      expect(code.map(nameOf)).toEqual(expect.arrayContaining(["sm_80", "sm_90", "sm_100", "sm_120", "compute_75"]));
    });

    it("has a library of kernels that loads without a device, and is CUDA's alone", async () => {
      const file = inTree("app/library/libdensemamba-cuda.so");
      const options = { libraryPath: file, sourceDir: "", cacheDir: "", cc: "" };
      const library = await openKernels({ ...options, target: "cuda" });
      expect(library).toMatchObject({ instructionSet: "cuda", device: "cuda", version: KERNELS_VERSION });
      // CUDA's runtime is linked in: that of the provider may be of another version.
      const { needed } = await readSharedObject(file);
      expect(needed.filter((name) => /cuda/.test(name))).toEqual([]);
      const onCpu = openKernels({ ...options, target: "host" });
      await expect(onCpu).rejects.toThrow("has the kernels for cuda, not for cpu");
    });

    it("has the sizes that docs/containers.md says", async () => {
      const text = read("docs/containers.md");
      const megabytes = async (part: string) => (await folderBytes(inTree(part))) / 1e6;
      for (const name of CUDA_LIBRARIES) {
        const { size } = await stat(inTree(`app/cuda/${name}`));
        expect(text).toContain(`| ${Math.round(size / 1e6)} | \`${name}\``);
      }
      expect(text).toContain(`CUDA's own part is ${Math.round((await megabytes("app/cuda")) / 10) * 10} MB`);
      expect(text).toContain(`the image is ${((await megabytes(".")) / 1000).toFixed(1)} GB`);
    });

    // Without our own operators the graph has other nodes, none of which may need cuDNN.
    it.each(["auto", "off"])("runs on the simulated device, with --kernels %s", async (kernels) => {
      const simulated = await buildSimulatedDevice(inTree(`${PROVIDER_FOLDER}/libonnxruntime_providers_cuda.so`));
      const server = start({
        // It stands in for CUDA's libraries and the driver.
        LD_LIBRARY_PATH: `${path.dirname(simulated.kernels)}:${inTree("app/cuda")}`,
        DENSEMAMBA_KERNEL_LIBRARY: simulated.kernels,
        DENSEMAMBA_KERNELS: kernels,
      });
      const url = await server.ready();
      if (kernels === "auto") expect(server.output).not.toContain("compiling");
      expect(server.output).toMatch(kernels === "auto" ? /native cuda.*kernels cuda/ : /native cuda.*plain ONNX/);
      await server.checkHealth(url);
      const answer = await fetch(`${url}/v1/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ prompt: "Once upon a time", max_tokens: 8 }),
      });
      const { error } = (await answer.json()) as { error?: { message: string } };
      // What ONNX Runtime's own kernels compute is not computed: an id may be any number.
      if (error !== undefined) expect(error.message).toContain("token id must be");
      expect(await server.stop()).toMatchObject({ code: 0 });
    });

    it("says without a driver what is missing, what there is, and what it needs", async () => {
      const { code, output } = await start({}).exited;
      expect(code).not.toBe(0);
      const [, found, needed] = /there is no NVIDIA driver.*Found: (.*)\. Needed: (.*)/.exec(output)!;
      for (const name of CUDA_LIBRARIES)
        expect([found, needed]).toEqual([expect.stringContaining(name), expect.stringContaining(name)]);
    });

    it("with DENSEMAMBA_DEVICE=auto and no driver runs on the CPU, which takes it less than a second more", async () => {
      const open = async (device: string) => {
        const server = start({ DENSEMAMBA_DEVICE: device });
        await server.ready();
        const seconds = Number(/ after ([\d.]+) s$/m.exec(server.output)![1]);
        return { seconds, output: (await server.stop()).output };
      };
      // The machine may be busy: the better of two.
      const tries = [await open("cpu"), await open("auto"), await open("auto"), await open("cpu")];
      expect(tries[1]!.output).toContain("there is no NVIDIA driver");
      expect(tries[1]!.output).toContain("native cpu");
      const [cpu1, auto1, auto2, cpu2] = tries.map(({ seconds }) => seconds);
      expect(Math.min(auto1!, auto2!) - Math.min(cpu1!, cpu2!)).toBeLessThan(1);
    });
  },
);

/** The files that the loader knows. */
async function binaries(root: string): Promise<string[]> {
  const entries = await readdir(root, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => path.join(entry.parentPath, entry.name));
  const elf = await Promise.all(
    files.map(async (file) => (await firstBytes(file, 4)).equals(Buffer.from("\x7fELF", "latin1"))),
  );
  return files.filter((_, index) => elf[index]);
}

async function firstBytes(file: string, length: number): Promise<Buffer> {
  const handle = await open(file);
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}

/** What a file is linked with, and where the loader finds it. */
async function linked(file: string, libraryPath: string): Promise<[string, string | undefined][]> {
  const { stdout } = await promisify(execFile)("ldd", [file], {
    env: { PATH: process.env.PATH, LD_LIBRARY_PATH: libraryPath },
  });
  return [...stdout.matchAll(/^\s+(\S+) => (not found|\S+)/gm)].map(([, name, found]) => [
    name!,
    found === "not found" ? undefined : found,
  ]);
}
