// Builds the kernels' libraries that the package brings, so that it needs no compiler: for this machine, and for the other
// architecture where a cross compiler is installed (Debian: gcc-aarch64-linux-gnu, gcc-x86-64-linux-gnu).
//
//   npm run build:kernels
import { spawnSync } from "node:child_process";
import { rmSync } from "node:fs";
import { stat } from "node:fs/promises";
import path from "node:path";
import { buildPrebuilt } from "../src/runtime/native/prebuilt-kernels.ts";

const root = path.join(import.meta.dirname, "..");
const places = { sourceDir: path.join(root, "kernels"), prebuiltDir: path.join(root, "prebuilt") };
const COMPILERS = { x64: "x86_64-linux-gnu-gcc", arm64: "aarch64-linux-gnu-gcc" };

rmSync(places.prebuiltDir, { recursive: true, force: true });
for (const [arch, cross] of Object.entries(COMPILERS)) {
  const cc = arch === process.arch ? process.env.CC || "cc" : cross;
  if (spawnSync(cc, ["--version"]).status !== 0) {
    console.log(`SKIPPED: there is no ${cc}: the package will need a compiler on ${arch}`);
    continue;
  }
  const file = await buildPrebuilt(places, { cc, arch });
  console.log(`${path.relative(root, file)}: ${(await stat(file)).size} bytes`);
}
