/**
 * The ONNX Runtime library that onnxruntime-node ships: where it is, and which execution providers
 * it can open.
 */
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { DenseMambaError } from "../errors.ts";

const LIBRARY_NAMES: Readonly<Record<string, (version: string) => string>> = {
  linux: () => "libonnxruntime.so.1",
  darwin: (version) => `libonnxruntime.${version}.dylib`,
  win32: () => "onnxruntime.dll",
};

/**
 * Providers with a library of their own. The main library lists them even if that one is missing.
 */
const PROVIDER_LIBRARIES: Readonly<Record<string, string>> = {
  CUDAExecutionProvider: "onnxruntime_providers_cuda",
  TensorrtExecutionProvider: "onnxruntime_providers_tensorrt",
};

/** Of onnxruntime-node, and so of the library that it ships. */
export function ortPackageVersion(): string {
  return String(createRequire(import.meta.url)("onnxruntime-node/package.json").version);
}

/** @throws `device_unavailable` if onnxruntime-node has no build for this platform. */
export function findOrtLibrary(): string {
  const packageDir = path.dirname(createRequire(import.meta.url).resolve("onnxruntime-node/package.json"));
  const version = ortPackageVersion();
  const libraryName = LIBRARY_NAMES[process.platform]?.(version);
  const binDir = path.join(packageDir, "bin", "napi-v6", process.platform, process.arch);
  const libraryPath = libraryName === undefined ? undefined : path.join(binDir, libraryName);
  if (libraryPath === undefined || !existsSync(libraryPath)) {
    throw new DenseMambaError(
      "device_unavailable",
      `onnxruntime-node ${version} has no library for ${process.platform}/${process.arch}: looked for ${libraryPath ?? binDir}`,
    );
  }
  return libraryPath;
}

/** The providers of `listed` that are built in, or whose library is beside the main one. */
export function openableProviders(listed: readonly string[], libraryPath: string): string[] {
  return listed.filter((provider) => {
    const isBuiltIn = !(provider in PROVIDER_LIBRARIES);
    return isBuiltIn || existsSync(path.join(path.dirname(libraryPath), providerLibrary(provider)));
  });
}

/** The file of a provider that has one. */
export function providerLibrary(provider: keyof typeof PROVIDER_LIBRARIES): string {
  const name = PROVIDER_LIBRARIES[provider]!;
  if (process.platform === "win32") return `${name}.dll`;
  return process.platform === "darwin" ? `lib${name}.dylib` : `lib${name}.so`;
}
