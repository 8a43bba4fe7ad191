/**
 * Whether CUDA can be had here, and what is missing: asked of the driver and of the files before
 * ONNX Runtime loads its provider, which would say less, and of a provider of another release end
 * the process. Takes milliseconds where there is no driver.
 */
import { existsSync } from "node:fs";
import path from "node:path";
import koffi, { type LibraryHandle } from "koffi";
import { providerLibrary } from "../ort-library.ts";
import { type DeviceCode, deviceCodeOf, nameOf as nameOfCode, runsOn } from "./device-code.ts";
import { readSections, readSharedObject } from "./elf.ts";
import { loadSharedLibrary } from "./shared-library.ts";

export interface CudaDevice {
  /** E.g. `NVIDIA H100 80GB HBM3`. */
  readonly name: string;
  /** E.g. 90 for sm_90. */
  readonly capability: number;
}

export type CudaReport =
  | { readonly isUsable: true; readonly device: CudaDevice }
  | {
      readonly isUsable: false;
      /** One sentence. */
      readonly problem: string;
      /** What was found and what is needed, of driver, provider and CUDA's libraries. */
      readonly details: string;
    };

export interface InspectOptions {
  /** ONNX Runtime's, which the provider has to lie beside. */
  readonly ortLibrary: string;
  readonly ortVersion: string;
  /** Where the loader looks first: LD_LIBRARY_PATH. */
  readonly libraryPath?: string | undefined;
  /** By a soname. @throws if it does not load */
  readonly load?: (soname: string) => LibraryHandle;
}

type Load = (soname: string) => Promise<LibraryHandle>;

const DRIVER = "libcuda.so.1";
/** What the provider of this release is linked with: said where there is none to ask. */
const CUDA_MAJOR = 13;
/** Those of CUDA's libraries that are named, with their major version. */
const CUDA_LIBRARY = /^lib(cudart|cublas|cublasLt|curand|cudnn|cufft)\.so\.(\d+)$/;
const OLDEST_MAJOR = 11;
const NEWEST_MAJOR = 15;

/** Never emptied: the provider is going to need them. */
const loaded: LibraryHandle[] = [];

/** On Linux. */
export async function inspectCuda({
  ortLibrary,
  ortVersion,
  libraryPath = "",
  load = loadSharedLibrary,
}: InspectOptions): Promise<CudaReport> {
  const loadWhole = async (soname: string): Promise<LibraryHandle> => {
    await checkWhole(soname, libraryPath);
    return load(soname);
  };
  const driver = await findDriver(loadWhole);
  const { device } = driver;
  const provider = await findProvider(ortLibrary, ortVersion, device?.capability);
  const libraries = await findLibraries(provider.needed, loadWhole);
  const major = majorOf(provider.needed) ?? CUDA_MAJOR;
  const tooOld = "version" in driver && driver.version < major * 1000;

  const problems = [
    ...(provider.problem === undefined ? [] : [provider.problem]),
    ...(driver.problem === undefined ? [] : [driver.problem]),
    ...(tooOld ? [`the NVIDIA driver is too old for CUDA ${major}`] : []),
    ...(libraries.missing.length === 0 ? [] : [`${libraries.missing.join(", ")} cannot be loaded`]),
  ];
  if (problems.length === 0 && device !== undefined) return { isUsable: true, device };
  const needed = [
    `an NVIDIA driver for CUDA ${major}.0 or later`,
    ...(provider.devices === undefined ? [] : [`a device that runs the provider's code, ${provider.devices}`]),
    `${path.basename(provider.path)} of ONNX Runtime ${ortVersion} in ${path.dirname(provider.path)}`,
    provider.needed.length > 0 ? provider.needed.join(", ") : `the libraries of CUDA ${major}`,
  ];
  const found = [driver.description, provider.description, libraries.description];
  const details = `found: ${found.join("; ")}. Needed: ${needed.join("; ")}`;
  return { isUsable: false, problem: problems.join("; "), details };
}

/**
 * Loading a library that is cut off ends the process.
 * @throws an error if the loader would find such a one on its path
 */
async function checkWhole(soname: string, libraryPath: string): Promise<void> {
  const files = libraryPath.split(/[:;]/).map((folder) => path.join(folder || ".", soname));
  const file = libraryPath === "" ? undefined : files.find((name) => existsSync(name));
  if (file === undefined) return;
  await readSections(file, async () => undefined).catch((error: unknown) => {
    throw new Error(`${file} cannot be read: ${messageOf(error)}`, { cause: error });
  });
}

interface Driver {
  readonly description: string;
  readonly problem?: string;
  /** As CUDA numbers them: 13020 for 13.2. */
  readonly version?: number;
  readonly device?: CudaDevice;
}

/** Of the newest CUDA that it can do, and of the first device. */
async function findDriver(load: Load): Promise<Driver> {
  let library: LibraryHandle;
  try {
    library = await load(DRIVER);
  } catch (error) {
    return { description: `no NVIDIA driver (${DRIVER}: ${messageOf(error)})`, problem: "there is no NVIDIA driver" };
  }
  loaded.push(library);
  try {
    return askDriver(library);
  } catch (error) {
    return { description: `${DRIVER}, but: ${messageOf(error)}`, problem: `${DRIVER} is not an NVIDIA driver's` };
  }
}

/** @throws koffi's error if it lacks a function */
function askDriver(library: LibraryHandle): Driver {
  const number = new Int32Array(1);
  const ask = (name: string, ...args: (number | ArrayBufferView)[]): number => {
    const types = args.map((arg) => (typeof arg === "number" ? "int" : "void *"));
    return library.func(name, "int", types)(...args);
  };
  const version = ask("cuDriverGetVersion", number) === 0 ? number[0]! : 0;
  const description = `an NVIDIA driver for CUDA ${nameOf(version)}`;
  const explain = (error: number) => explainDriver(library, error);
  const started = ask("cuInit", 0);
  if (started !== 0) {
    const reason = explain(started);
    return {
      description: `${description} (${reason})`,
      version,
      problem: `the NVIDIA driver does not start: ${reason}`,
    };
  }
  const counted = ask("cuDeviceGetCount", number);
  if (counted !== 0 || number[0]! < 1) {
    return { description: `${description} without a device`, version, problem: "the NVIDIA driver has no device" };
  }
  const name = new Uint8Array(256);
  ask("cuDeviceGetName", name, name.length, 0);
  const attribute = (which: number) => (ask("cuDeviceGetAttribute", number, which, 0) === 0 ? number[0]! : 0);
  const capability = 10 * attribute(COMPUTE_CAPABILITY_MAJOR) + attribute(COMPUTE_CAPABILITY_MINOR);
  const device = { name: Buffer.from(name).toString("utf8").replace(/\0.*$/s, ""), capability };
  return { description: `${description} (${device.name}, sm_${capability})`, version, device };
}

/** CUdevice_attribute */
const COMPUTE_CAPABILITY_MAJOR = 75;
const COMPUTE_CAPABILITY_MINOR = 76;

function explainDriver(library: LibraryHandle, error: number): string {
  const out = new BigUint64Array(1);
  const isKnown = library.func("cuGetErrorString", "int", ["int", "void *"])(error, out) === 0;
  return `${isKnown ? koffi.decode.string(out[0]!) : "unknown error"} (error ${error})`;
}

interface Provider {
  readonly path: string;
  readonly description: string;
  readonly problem?: string;
  /** Of CUDA's libraries. */
  readonly needed: readonly string[];
  /** That it has code for, if the device is none of them. */
  readonly devices?: string;
}

/** Through which ONNX Runtime loads a provider. */
const SHARED_LIBRARY = "libonnxruntime_providers_shared.so";

/** `capability`: of the device, if there is one. */
async function findProvider(ortLibrary: string, ortVersion: string, capability: number | undefined): Promise<Provider> {
  const file = path.join(path.dirname(ortLibrary), providerLibrary("CUDAExecutionProvider"));
  const nameless = { path: file, needed: [] };
  if (!existsSync(file)) {
    return { ...nameless, description: "no CUDA provider", problem: "this ONNX Runtime has no CUDA provider" };
  }
  try {
    const { needed, constants } = await readSharedObject(file);
    const version = versionIn(constants, ortVersion);
    const description = `the CUDA provider of ONNX Runtime ${version ?? "of an unknown version"}`;
    const known = { path: file, description, needed: needed.filter((name) => CUDA_LIBRARY.test(name)) };
    if (version !== ortVersion) {
      return { ...known, problem: `the CUDA provider is not that of ONNX Runtime ${ortVersion}` };
    }
    const shared = path.join(path.dirname(ortLibrary), SHARED_LIBRARY);
    if (!existsSync(shared)) {
      return { ...known, problem: `${SHARED_LIBRARY} is not beside the CUDA provider` };
    }
    await readSections(shared, async () => undefined).catch((error: unknown) => {
      throw new Error(`${SHARED_LIBRARY} beside it: ${messageOf(error)}`, { cause: error });
    });
    return capability === undefined ? known : { ...known, ...(await findCode(file, capability)) };
  } catch (error) {
    const problem = `${file} cannot be read: ${messageOf(error)}`;
    return { ...nameless, description: "a CUDA provider that cannot be read", problem };
  }
}

/** What is wrong with a device for which the provider has no code. */
async function findCode(file: string, capability: number): Promise<Pick<Provider, "problem" | "devices">> {
  const runs = (all: readonly DeviceCode[]) => all.some((code) => runsOn(code, capability));
  const code = await deviceCodeOf(file, runs);
  if (code.length === 0 || runs(code)) return {}; // of none nothing is known
  const devices = code.map(nameOfCode).join(", ");
  return { problem: `the CUDA provider has no code for sm_${capability}`, devices };
}

/** The release that a provider was built as is a string of its own in it. */
function versionIn(constants: Buffer, expected: string): string | undefined {
  if (constants.includes(`\0${expected}\0`)) return expected;
  return /\0(\d+\.\d+\.\d+)\0/.exec(constants.toString("latin1"))?.[1];
}

async function findLibraries(
  needed: readonly string[],
  load: Load,
): Promise<{ readonly missing: readonly string[]; readonly description: string }> {
  /** Why a library that is there does not load. */
  const reasons: string[] = [];
  const tryLoading = async (name: string): Promise<boolean> => {
    try {
      loaded.push(await load(name));
      return true;
    } catch (error) {
      const reason = messageOf(error);
      if (!reason.includes("No such file")) reasons.push(`${name} does not load (${reason})`);
      return false;
    }
  };
  const present: string[] = [];
  const missing: string[] = [];
  // The runtime first: the others are linked with it.
  const order = [...needed].sort((a, b) => Number(b.includes("cudart")) - Number(a.includes("cudart")));
  for (const name of order) ((await tryLoading(name)) ? present : missing).push(name);
  for (let major = NEWEST_MAJOR; major >= OLDEST_MAJOR; major--) {
    const name = `libcudart.so.${major}`;
    if (!needed.includes(name) && (await tryLoading(name))) present.push(name);
  }
  const found = [...present, ...reasons];
  return { missing, description: found.length === 0 ? "no library of CUDA" : found.join(", ") };
}

function majorOf(needed: readonly string[]): number | undefined {
  const runtime = needed.find((name) => name.startsWith("libcudart."));
  return runtime === undefined ? undefined : Number(CUDA_LIBRARY.exec(runtime)![2]);
}

/** 13020 → `13.2` */
function nameOf(version: number): string {
  return `${Math.floor(version / 1000)}.${Math.floor((version % 1000) / 10)}`;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
