/**
 * The kernels' library: whatever is wrong with it is one clear reason to do without, never a crash.
 */
import { spawnSync } from "node:child_process";
import {
  appendFileSync,
  chmodSync,
  chownSync,
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { findKernels, openKernelLibrary } from "../../src/app/kernels.ts";
import { KERNELS_VERSION } from "../../src/model/artifact.ts";
import { checkKernelFile, copyKernelFile, sealKernelFile, sealOf } from "../../src/runtime/native/kernel-file.ts";
import { type OpenKernelsOptions, openKernels } from "../../src/runtime/native/kernel-library.ts";
import { buildPrebuilt, type PrebuiltPlaces } from "../../src/runtime/native/prebuilt-kernels.ts";

const CC = process.env.CC || "cc";
const hasCompiler = spawnSync(CC, ["--version"]).status === 0;
const ELF_MACHINE = 18; // offset
const IA_64 = 50;

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "densemamba-kernels-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const inFolder = (name: string) => path.join(folder, name);

describe.skipIf(!hasCompiler || process.platform !== "linux")("the library that the package brings", () => {
  const config = { kernelLibrary: undefined, cCompiler: "no-such-compiler", nvcc: "nvcc", cacheDir: "" };
  const openIn = async (places: PrebuiltPlaces, cCompiler = "no-such-compiler") => {
    const notes: string[] = [];
    const cacheDir = inFolder("prebuilt-cache");
    const library = await openKernelLibrary(
      { ...config, cCompiler, cacheDir },
      "host",
      (note) => notes.push(note),
      places,
    );
    return { library, notes };
  };

  it("needs no compiler, until the sources change or it is damaged; then the cache's is built", async () => {
    const places = { sourceDir: fakeSources("packaged"), prebuiltDir: inFolder("prebuilt") };
    const { arch } = process;
    const file = await buildPrebuilt(places, { cc: CC, arch });
    expect((await openIn(places)).library.path).toBe(file);
    appendFileSync(file, "more");
    const { library, notes } = await openIn(places, CC);
    expect(library.path).toContain("prebuilt-cache");
    expect(notes[0]).toMatch(/^not the packaged kernels: .* is corrupt/);
    await buildPrebuilt(places, { cc: CC, arch });
    appendFileSync(path.join(places.sourceDir, "nothing.c"), "// changed\n");
    await expect(openIn(places)).rejects.toThrow("there is no C compiler: no-such-compiler is not found");
  });

  it("does not stand in for a library that is named", async () => {
    const places = { sourceDir: fakeSources("packaged-too"), prebuiltDir: inFolder("prebuilt-too") };
    await buildPrebuilt(places, { cc: CC, arch: process.arch });
    const named = { ...config, kernelLibrary: "/nowhere.so" };
    await expect(openKernelLibrary(named, "host", () => {}, places)).rejects.toThrow("cannot read /nowhere.so");
  });

  it("is none where there is no folder of them", async () => {
    const places = { sourceDir: fakeSources("unpackaged"), prebuiltDir: inFolder("nothing") };
    await expect(openIn(places)).rejects.toThrow("there is no C compiler");
  });
});

/** A small library that is built like the real one. */
function fakeSources(
  name: string,
  { version = KERNELS_VERSION, set = '"baseline"', code = "", prelude = "" } = {},
): string {
  const dir = inFolder(name);
  mkdirSync(dir);
  writeFileSync(path.join(dir, "op.c"), code);
  writeFileSync(
    path.join(dir, "register.c"),
    `${prelude}
     #define EXPORT __attribute__((visibility("default")))
     EXPORT int densemamba_kernels_version(void) { return ${version}; }
     EXPORT const char *densemamba_kernels_isa(void) { return ${set}; }
     EXPORT void *densemamba_kernels_register(void *a, void *b, void *c) { return 0; }`,
  );
  writeFileSync(path.join(dir, "nothing.c"), "");
  return dir;
}

const build = (options: Partial<OpenKernelsOptions>) =>
  openKernels({
    libraryPath: undefined,
    sourceDir: "kernels",
    cacheDir: inFolder("cache"),
    cc: CC,
    target: "host",
    ...options,
  });

describe.skipIf(!hasCompiler)(`with ${CC} here`, () => {
  let intact: string;
  beforeAll(async () => {
    intact = (await build({ sourceDir: fakeSources("intact") })).path;
  });

  /** A copy of a library that loads, spoilt. */
  function spoilt(name: string, spoil: (bytes: Buffer) => Buffer, { sealed = false } = {}): string {
    const file = inFolder(name);
    writeFileSync(file, spoil(readFileSync(intact)));
    if (sealed) copyFileSync(sealOf(intact), sealOf(file));
    return file;
  }

  const loads = (libraryPath: string) => build({ libraryPath, cc: "no-compiler-is-run" });

  it("the sources of this checkout compile, and are of the version that graphs are compiled for", async () => {
    const library = process.env.DENSEMAMBA_KERNEL_LIBRARY;
    expect(library, "test/helpers/global-setup.ts could not build it; its message is above").toBeDefined();
    expect((await loads(library!)).version).toBe(KERNELS_VERSION);
    expect(readFileSync("kernels/op.h", "utf8")).toContain(`#define DM_KERNELS_VERSION ${KERNELS_VERSION}\n`);
  });

  describe("in the cache", () => {
    it("is compiled at the first start and taken from there afterwards", async () => {
      const options = { sourceDir: fakeSources("first"), cacheDir: inFolder("cache-first") };
      const told: string[] = [];
      const first = await build({ ...options, onBuild: (message) => told.push(message) });
      expect(told).toEqual([`compiling the kernels with ${CC}`]);
      const { mtimeMs } = statSync(first.path);
      const second = await build({ ...options, onBuild: (message) => told.push(message) });
      expect(second.path).toBe(first.path);
      expect(statSync(second.path).mtimeMs).toBe(mtimeMs);
      expect(told).toHaveLength(1);
      expect(readdirSync(path.join(options.cacheDir, "kernels"))).toHaveLength(1); // and nothing temporary
    });

    it("is another one when a source changes", async () => {
      const sourceDir = fakeSources("changing");
      const before = await build({ sourceDir });
      appendFileSync(path.join(sourceDir, "op.c"), "int more;\n");
      expect((await build({ sourceDir })).path).not.toBe(before.path);
    });

    it.each([
      ["cut off", (bytes: Buffer) => bytes.subarray(0, bytes.length >> 1)],
      ["altered", (bytes: Buffer) => bytes.fill(0xff, bytes.length >> 1, (bytes.length >> 1) + 8)],
      ["empty", () => Buffer.alloc(0)],
    ])("is compiled anew when it is %s", async (name, spoil) => {
      const sourceDir = fakeSources(`spoilt-${name}`);
      const { path: file } = await build({ sourceDir });
      const bytes = readFileSync(file);
      await rm(file); // a library that is loaded must not be written into
      writeFileSync(file, spoil(Buffer.from(bytes)));
      const told: string[] = [];
      await build({ sourceDir, onBuild: (message) => told.push(message) });
      expect(told).toHaveLength(1);
      expect(statSync(file).size).toBe(bytes.length);
    });

    it.each([
      ["its file may be written by others", (file: string) => chmodSync(file, 0o775)],
      ["its folder may be written by others", (file: string) => chmodSync(path.dirname(file), 0o777)],
    ])("is compiled anew where %s", async (name, open) => {
      const sourceDir = fakeSources(`open-${name}`);
      const { path: file } = await build({ sourceDir });
      const { ino } = statSync(file);
      open(file);
      await expect(checkKernelFile(file, { isCached: true })).rejects.toMatchObject({
        code: "device_unavailable",
        message: expect.stringContaining("may be written by others"),
      });
      const told: string[] = [];
      await build({ sourceDir, onBuild: (message) => told.push(message) });
      expect(told).toHaveLength(1);
      expect(statSync(file).ino).not.toBe(ino);
      await checkKernelFile(file, { isCached: true });
    });

    it.runIf(process.getuid?.() === 0)("is not loaded where it belongs to another user", async () => {
      const sourceDir = fakeSources("foreign");
      const { path: file } = await build({ sourceDir });
      chownSync(file, 12_345, 12_345);
      await expect(checkKernelFile(file, { isCached: true })).rejects.toThrow(
        /belongs to user 12345, not to 0 or root/,
      );
    });

    it("is one, whole, when several processes compile it at once", async () => {
      const sourceDir = fakeSources("raced");
      const libraries = await Promise.all([1, 2, 3, 4].map(() => build({ sourceDir })));
      expect(new Set(libraries.map((library) => library.path)).size).toBe(1);
      await expect(loads(libraries[0]!.path)).resolves.toMatchObject({ version: KERNELS_VERSION });
    });
  });

  describe("is refused, with the reason,", () => {
    const refused = (name: string, libraryPath: () => string | Promise<string>, reason: RegExp) =>
      it(name, async () => {
        await expect(loads(await libraryPath())).rejects.toMatchObject({
          code: "device_unavailable",
          message: expect.stringMatching(reason),
        });
      });

    refused("when it is missing", () => inFolder("missing.so"), /^cannot read \S+missing\.so$/);
    refused(
      "when it is something else",
      () => path.resolve("package.json"),
      /package\.json is not a shared library for/,
    );
    refused("when it is a program", () => process.execPath, /is not|was built for/);
    refused(
      "when it is cut off",
      () => spoilt("cut.so", (bytes) => bytes.subarray(0, bytes.length - 1)),
      process.platform === "linux" ? /cut\.so is cut off: \d+ bytes, its header says \d+$/ : /cut\.so/,
    );
    refused(
      "when a byte is not what its seal says",
      () => spoilt("altered.so", (bytes) => bytes.fill(1, 2000, 2001), { sealed: true }),
      /altered\.so is corrupt: its sha256 is not the one in \S+altered\.so\.sha256$/,
    );
    refused(
      "when it was built for another machine",
      () =>
        spoilt("foreign.so", (bytes) => {
          bytes.writeUInt16LE(IA_64, process.platform === "linux" ? ELF_MACHINE : 4);
          return bytes;
        }),
      /foreign\.so was built for another machine, not a shared library for/,
    );
    function linked(name: string, fake: Parameters<typeof fakeSources>[1]): string {
      const file = inFolder(`${name}.so`);
      const args = ["-shared", "-fPIC", "register.c", "-o", file];
      expect(spawnSync(CC, args, { cwd: fakeSources(name, fake) }).status).toBe(0);
      return file;
    }

    refused(
      "when it is of another version",
      () => linked("newer", { version: 99 }),
      new RegExp(`newer\\.so has version 99 of the kernels, this program needs ${KERNELS_VERSION}$`),
    );
    refused(
      "when it was built for CPUs of another kind",
      () => linked("wider", { set: "0" }),
      /wider\.so was built for CPUs with more instructions than this one has$/,
    );
    refused(
      "when it is another library",
      () => {
        writeFileSync(inFolder("other.c"), "int other(void) { return 1; }");
        expect(spawnSync(CC, ["-shared", "-fPIC", "other.c", "-o", "other.so"], { cwd: folder }).status).toBe(0);
        return inFolder("other.so");
      },
      /other\.so is not a library of densemamba's kernels/,
    );
    refused(
      "when it needs what is not here",
      async () => {
        writeFileSync(inFolder("needy.c"), "int missing(void); int (*p)(void) = missing;");
        expect(spawnSync(CC, ["-shared", "-fPIC", "needy.c", "-o", "needy.so"], { cwd: folder }).status).toBe(0);
        await sealKernelFile(inFolder("needy.so"));
        return inFolder("needy.so");
      },
      /^cannot load \S+needy\.so: /,
    );
  });

  it("is made for what the compiler knows, where that is older than the CPU", async () => {
    const cc = inFolder("old-cc");
    writeFileSync(
      cc,
      `#!/bin/sh\ncase " $* " in *" -m"*) echo "error: unrecognized option" >&2; exit 1;; esac\nexec ${CC} "$@"\n`,
    );
    chmodSync(cc, 0o755);
    const sourceDir = fakeSources("for-old-cc", { set: "DM_ISAS(SET)", prelude: '#define SET(set) #set " "' });
    for (const target of ["host", "all"] as const) {
      expect((await build({ sourceDir, cc, target })).instructionSet).toBe("baseline ");
    }
  });

  it("has AVX-512 beside AMX, which the system may refuse to grant", async ({ skip }) => {
    const cpu = process.platform === "linux" ? readFileSync("/proc/cpuinfo", "utf8") : "";
    if (!/^flags\b.*\bamx_int8\b/m.test(cpu)) skip("this CPU has no AMX");
    const sourceDir = fakeSources("for-amx", { set: "DM_ISAS(SET)", prelude: '#define SET(set) #set " "' });
    expect((await build({ sourceDir })).instructionSet).toBe("avx512 amx ");
  });

  it("says what the compiler said when it fails", async () => {
    const sourceDir = fakeSources("wrong", { code: "int f(void) { return undeclared; }" });
    await expect(build({ sourceDir })).rejects.toMatchObject({
      code: "device_unavailable",
      message: expect.stringMatching(/^\S+ cannot compile the kernels: \S+op\.c:1:\d+: error: .*undeclared/),
    });
    expect(readdirSync(path.join(inFolder("cache"), "kernels")).filter((name) => name.startsWith("."))).toEqual([]);
  });

  it("can be put elsewhere, over one that is in use", async () => {
    const copy = inFolder("elsewhere/kernels.so");
    await copyKernelFile(intact, copy);
    await loads(copy);
    await copyKernelFile(intact, copy);
    await expect(loads(copy)).resolves.toMatchObject({ path: copy });
  });
});

describe("the program without kernels", () => {
  const config = {
    kernels: "auto",
    kernelLibrary: undefined,
    runtime: "native",
    cCompiler: CC,
    nvcc: "no-nvcc",
  } as const;

  it.each([
    ["there is no compiler", { cCompiler: "no-such-compiler" }, /no C compiler: no-such-compiler is not found$/],
    ["the compiler is none", { cCompiler: "false" }, /no C compiler: false fails \(exit code 1\)$/],
    ["the cache cannot be written", { cacheDir: "/dev/null/cache" }, /cannot be cached in \/dev\/null\/cache\/kernels/],
    ["the library that is named is missing", { kernelLibrary: "missing.so" }, /cannot read missing\.so$/],
  ])("says so in one line when %s", async (_, change, reason) => {
    const notes: string[] = [];
    const options = { ...config, cacheDir: inFolder("cache-without"), ...change };
    expect(await findKernels(options, "cpu", (message) => notes.push(message))).toBeUndefined();
    const said = notes.filter((note) => !note.startsWith("compiling"));
    expect(said).toEqual([expect.stringMatching(/^plain ONNX in place of kernels: /)]);
    expect(said[0]).toMatch(reason);
    expect(said[0]).not.toContain("\n");
  });

  it("says so on CUDA, where there is no compiler for it", async () => {
    const notes: string[] = [];
    const options = { ...config, cacheDir: inFolder("cache-cuda") };
    expect(await findKernels(options, "cuda", (message) => notes.push(message))).toBeUndefined();
    expect(notes).toEqual(["plain ONNX in place of kernels: there is no CUDA compiler: no-nvcc is not found"]);
  });

  it.skipIf(!hasCompiler)("says so on CUDA of a library for CPUs", async () => {
    const notes: string[] = [];
    const { path: kernelLibrary } = await build({ sourceDir: fakeSources("for-cpus") });
    const options = { ...config, cacheDir: inFolder("cache-cpu"), kernelLibrary };
    expect(await findKernels(options, "cuda", (message) => notes.push(message))).toBeUndefined();
    expect(notes).toEqual([expect.stringMatching(/plain ONNX.*has the kernels for cpu, not for cuda$/)]);
  });

  it.each([
    ["they are off", { kernels: "off" }, "cpu"],
    ["the runner is the portable one", { runtime: "portable" }, "cpu"],
  ] as const)("looks for none when %s", async (_, change, device) => {
    const cacheDir = inFolder("cache-untouched");
    const note = (message: string) => expect.fail(message);
    expect(await findKernels({ ...config, cacheDir, ...change }, device, note)).toBeUndefined();
    expect(readdirSync(folder)).not.toContain("cache-untouched");
  });
});
