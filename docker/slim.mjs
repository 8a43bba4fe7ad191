// Removes from /app what an image never loads: native libraries for other platforms (onnxruntime-node and tokenizers carry all of
// theirs, 300 MB together), source maps, TypeScript, tests. Run there after the build and `npm prune --omit=dev`:
//
//   node docker/slim.mjs
import { existsSync, readdirSync, rmSync, statSync } from "node:fs";
import path from "node:path";

const { platform, arch } = process;
const modules = "node_modules";

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

// What /docs serves. The package has the same bundle for browsers twice more.
const SWAGGER_UI = ["package.json", "LICENSE", "NOTICE", "swagger-ui-bundle.js", "swagger-ui.css"];
keepOnly(path.join(modules, "swagger-ui-dist"), (name) => SWAGGER_UI.includes(name));
// Its C++ sources, and the build for musl: the images have glibc.
keepOnly(path.join(modules, "koffi"), (name) => name !== "vendor" && name !== "lib");
keepOnly(path.join(modules, "@koromix", `koffi-${platform}-${arch}`), (name) => !name.startsWith("musl"));

const DEAD_FILES = /\.(map|[cm]?ts|tsbuildinfo|cc|hh)$/;
const DEAD_FOLDERS = /^(test|tests|docs?|examples?|benchmarks?)$/;
/** Whether a folder of node_modules is a package's own top. */
const isPackage = (name) => existsSync(path.join(modules, name, "package.json"));
for (const root of [modules, "dist"]) {
  for (const name of readdirSync(root, { recursive: true, encoding: "utf8" })) {
    const file = path.join(root, name);
    if (!existsSync(file)) continue; // with its folder
    const isFolder = statSync(file).isDirectory();
    const { dir, base } = path.parse(name);
    if (isFolder ? DEAD_FOLDERS.test(base) && isPackage(dir) : DEAD_FILES.test(base)) remove(file);
  }
}

console.log(`removed ${(removedBytes / 2 ** 20).toFixed(0)} MiB that ${platform}/${arch} does not need`);
