// What compiling a large model takes, in time and memory, on random f16 weights of one of the
// bench's shapes:
//
//   npx tsx scripts/compile-memory.ts [shape, default denseretnet-1.3b] [precision, default int8] [folder for about 4 GB]
//
// Prints one JSON line. `peakMiB` is the process's whole resident set at its largest, `baseMiB`
// what it had before.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { compileModel } from "../src/compiler/compile.ts";
import { RANDOM_SHAPES, writeRandomCheckpoint } from "../src/compiler/random-checkpoint.ts";
import { PRECISIONS } from "../src/model/artifact.ts";

const [shapeName = "denseretnet-1.3b", precisionName = "int8", parent = tmpdir()] = process.argv.slice(2);
const [, shape] = Object.entries(RANDOM_SHAPES).find(([name]) => name === shapeName) ?? [];
const precision = PRECISIONS.find((name) => name === precisionName);
if (shape === undefined || precision === undefined) {
  const known = [Object.keys(RANDOM_SHAPES), PRECISIONS].map((names) => names.join("|"));
  throw new Error(`expected [${known[0]}] [${known[1]}] [folder], given ${process.argv.slice(2).join(" ")}`);
}

const peakMiB = () => Math.round(process.resourceUsage().maxRSS / 1024);
const dir = await mkdtemp(join(parent, "densemamba-compile-"));
try {
  const modelDir = join(dir, "checkpoint");
  await writeRandomCheckpoint({ outDir: modelDir, shape, seed: 1, dtype: "F16" });
  const baseMiB = peakMiB();
  const startMs = performance.now();
  const { numParameters, files } = await compileModel({ modelDir, precision, outDir: join(dir, "artifact") });
  const seconds = Math.round((performance.now() - startMs) / 100) / 10;
  const artifactBytes = files.reduce((sum, { bytes }) => sum + bytes, 0);
  const line = { shape: shapeName, precision, numParameters, artifactBytes, seconds, baseMiB, peakMiB: peakMiB() };
  console.log(JSON.stringify(line));
} finally {
  await rm(dir, { recursive: true, force: true });
}
