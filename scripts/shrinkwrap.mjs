// Writes npm-shrinkwrap.json for `npm pack`, and removes it afterwards (`--remove`): package-lock.json without what only
// development needs. npm installs the package's dependencies by it: in the versions that were tested, and without the install
// script of onnxruntime-node, which downloads CUDA libraries and fails where their host is out of reach (see tidy-lock.mjs).
import { readFileSync, rmSync, writeFileSync } from "node:fs";

const file = (name) => new URL(`../${name}`, import.meta.url);
if (process.argv.includes("--remove")) rmSync(file("npm-shrinkwrap.json"), { force: true });
else {
  const lock = JSON.parse(readFileSync(file("package-lock.json"), "utf8"));
  const entries = Object.entries(lock.packages).filter(([, { dev, devOptional }]) => !dev && !devOptional);
  lock.packages = Object.fromEntries(entries);
  delete lock.packages[""].devDependencies;
  writeFileSync(file("npm-shrinkwrap.json"), `${JSON.stringify(lock, null, 2)}\n`);
}
