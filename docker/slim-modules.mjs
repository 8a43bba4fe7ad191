// Removes from node_modules what this image never loads: native libraries for other platforms (onnxruntime-node and
// tokenizers carry all of theirs, 300 MB together), source maps, type declarations. Run after `npm prune --omit=dev`:
//
//   node docker/slim-modules.mjs [node_modules]
import { existsSync, readdirSync, rmSync, statSync } from "node:fs";
import path from "node:path";

const modules = process.argv[2] ?? "node_modules";
const { platform, arch } = process;

let removedBytes = 0;
function remove(target) {
  removedBytes += sizeOf(target);
  rmSync(target, { recursive: true, force: true });
}

function sizeOf(target) {
  const info = statSync(target);
  if (!info.isDirectory()) return info.size;
  return readdirSync(target).reduce((sum, name) => sum + sizeOf(path.join(target, name)), 0);
}

/** Removes each entry of `folder` that `keeps` does not want. A package laid out in another way must not pass unseen. */
function keepOnly(folder, keeps) {
  const names = readdirSync(folder);
  if (!names.some(keeps)) throw new Error(`${folder} has nothing for ${platform}/${arch}: ${names.join(", ")}`);
  for (const name of names) if (!keeps(name)) remove(path.join(folder, name));
}

const onnxruntime = path.join(modules, "onnxruntime-node", "bin", "napi-v6");
keepOnly(onnxruntime, (name) => name === platform);
keepOnly(path.join(onnxruntime, platform), (name) => name === arch);

const isOwnBuild = new RegExp(`^tokenizers\\.${platform}-${arch}(-gnu|-msvc)?\\.node$`);
const tokenizers = path.join(modules, "tokenizers");
if (!readdirSync(tokenizers).some((name) => isOwnBuild.test(name))) {
  throw new Error(`tokenizers has no build for ${platform}/${arch}`);
}
keepOnly(tokenizers, (name) => !name.endsWith(".node") || isOwnBuild.test(name));

for (const name of readdirSync(modules, { recursive: true, encoding: "utf8" })) {
  const file = path.join(modules, name);
  if (/\.(map|d\.[cm]?ts|tsbuildinfo)$/.test(name) && existsSync(file) && statSync(file).isFile()) remove(file);
}

console.log(`removed ${(removedBytes / 2 ** 20).toFixed(0)} MiB that ${platform}/${arch} does not need`);
