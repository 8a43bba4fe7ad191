// Tidies package-lock.json after a dependency changed: `npm run lock`. Two things in it are
// nobody's business but the machine's that wrote it, and test/house/packaging.test.ts refuses them.
//
// `resolved` names the registry that the writer happened to use; `npm ci` resolves by name and
// integrity without it. `hasInstallScript` makes npm 10 (Node 20 and 22) run a dependency's install
// script. Two are not wanted: onnxruntime-node's downloads CUDA libraries and fails the install
// where that host is out of reach, and @scarf/scarf's reports the install to its makers. npm 11 and
// later obey `allowScripts` in package.json instead.
import { readFileSync, writeFileSync } from "node:fs";

const WITHOUT_INSTALL_SCRIPT = ["node_modules/onnxruntime-node", "node_modules/@scarf/scarf"];

const lockFile = new URL("../package-lock.json", import.meta.url);
const lock = JSON.parse(readFileSync(lockFile, "utf8"));
for (const [path, entry] of Object.entries(lock.packages)) {
  delete entry.resolved;
  if (WITHOUT_INSTALL_SCRIPT.includes(path)) delete entry.hasInstallScript;
}
writeFileSync(lockFile, `${JSON.stringify(lock, null, 2)}\n`);
