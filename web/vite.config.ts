/**
 * Builds the page into `dist/web`, with a compressed copy beside each file. `npm run dev:page`
 * serves it from the sources, with the API of a server on port 8080.
 */
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { brotliCompress, gzip } from "node:zlib";
import { defineConfig, type Plugin } from "vite";

const SERVER = "http://127.0.0.1:8080";

function compressedCopies(): Plugin {
  return {
    name: "compressed-copies",
    apply: "build",
    async writeBundle({ dir }) {
      for (const entry of await readdir(dir!, { recursive: true, withFileTypes: true })) {
        if (!entry.isFile()) continue;
        const file = join(entry.parentPath, entry.name);
        const bytes = await readFile(file);
        await writeFile(`${file}.gz`, await promisify(gzip)(bytes, { level: 9 }));
        await writeFile(`${file}.br`, await promisify(brotliCompress)(bytes));
      }
    },
  };
}

export default defineConfig({
  root: import.meta.dirname,
  // The page works under any path: of a proxy, or of --root-path.
  base: "./",
  build: {
    outDir: "../dist/web",
    emptyOutDir: true,
    target: "es2022",
    // The page's policy allows neither inline scripts nor styles.
    assetsInlineLimit: 0,
    modulePreload: false,
    rolldownOptions: { checks: { pluginTimings: false } },
  },
  plugins: [compressedCopies()],
  server: {
    proxy: Object.fromEntries(
      ["/v1", "/ready", "/load", "/metrics", "/version"].map((path) => [path, { target: SERVER, ws: path === "/v1" }]),
    ),
  },
});
