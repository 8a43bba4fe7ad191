/**
 * Which execution providers the ONNX Runtime at hand can open. Asked of onnxruntime-node, so that the answer does not
 * depend on which runner is used.
 */
import { createRequire } from "node:module";
import { findOrtLibrary, openableProviders } from "./ort-library.ts";

/** onnxruntime-node's short names → ONNX Runtime's own. */
const PROVIDER_NAMES: Readonly<Record<string, string>> = {
  cpu: "CPUExecutionProvider",
  cuda: "CUDAExecutionProvider",
  tensorrt: "TensorrtExecutionProvider",
  webgpu: "WebGpuExecutionProvider",
  dml: "DmlExecutionProvider",
  coreml: "CoreMLExecutionProvider",
};

/**
 * E.g. `["CPUExecutionProvider"]`: those whose libraries are there, whether or not a device is.
 * @throws `device_unavailable` where onnxruntime-node has no build for this platform.
 */
export function listProviders(): string[] {
  const libraryPath = findOrtLibrary();
  // Loaded at the first call, not at import: it opens the whole library.
  const { listSupportedBackends }: typeof import("onnxruntime-node") = createRequire(import.meta.url)(
    "onnxruntime-node",
  );
  const listed = listSupportedBackends().map(({ name }) => PROVIDER_NAMES[name] ?? name);
  return openableProviders(listed, libraryPath);
}
