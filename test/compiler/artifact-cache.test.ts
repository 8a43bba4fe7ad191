import { execFile } from "node:child_process";
import {
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ensureArtifact, verifyArtifact } from "../../src/compiler/artifact-cache.ts";
import { FileHasher, hashFile } from "../../src/compiler/file-hash.ts";
import { readManifest } from "../../src/model/manifest.ts";
import { editConfig, randomCheckpoint, temporaryFolder } from "../helpers/checkpoints.ts";
import { numCases } from "../helpers/random-cases.ts";

let modelDir: string;
let cacheDir: string;
beforeEach(async () => {
  modelDir = await randomCheckpoint();
  cacheDir = temporaryFolder();
});
afterEach(() => {
  rmSync(modelDir, { recursive: true });
  rmSync(cacheDir, { recursive: true });
});

const ensure = () => ensureArtifact({ modelDir, precision: "f32", cacheDir });

function flipByte(path: string): void {
  const bytes = readFileSync(path);
  bytes[bytes.length >> 1]! ^= 0xff;
  writeFileSync(path, bytes);
}

describe("the artifact cache", () => {
  it("alone, if asked for nothing else: what it lacks is not compiled, but refused", async () => {
    const cachedOnly = () => ensureArtifact({ modelDir, precision: "f32", cacheDir, cachedOnly: true });
    await expect(cachedOnly()).rejects.toMatchObject({
      code: "invalid_artifact",
      message: expect.stringMatching(/is not compiled to f32 in .*: run `densemamba compile`/),
    });
    const { dir } = await ensure();
    expect(await cachedOnly()).toMatchObject({ dir, compiled: false });
  });

  it("compiles once, then gives the same artifact back", async () => {
    const first = await ensure();
    expect(first.compiled).toBe(true);
    const second = await ensure();
    expect(second).toEqual({ ...first, compiled: false });
    expect(second.manifest).toEqual(await readManifest(first.dir));
  });

  it("compiles anew for another precision, other weights, or another config", async () => {
    const first = await ensure();
    const int8 = await ensureArtifact({ modelDir, precision: "int8", cacheDir });
    expect(int8.compiled).toBe(true);
    flipByte(join(modelDir, "model.safetensors"));
    const weights = await ensure();
    expect(weights.compiled).toBe(true);
    editConfig(modelDir, { layer_norm_epsilon: 1e-6 });
    const config = await ensure();
    expect(config.compiled).toBe(true);
    const hashes = [first, int8, weights, config].map(({ manifest }) => manifest.modelHash);
    expect(new Set(hashes).size).toBe(4);
  });

  it.each<[string, (dir: string) => void]>([
    ["altered weights", (dir) => flipByte(join(dir, "weights.bin"))],
    ["an altered graph", (dir) => flipByte(join(dir, "decode.onnx"))],
    ["truncated weights", (dir) => truncateSync(join(dir, "weights.bin"), 100)],
    ["a missing file", (dir) => rmSync(join(dir, "model.onnx"))],
    ["a missing manifest", (dir) => rmSync(join(dir, "manifest.json"))],
    ["a manifest cut short", (dir) => truncateSync(join(dir, "manifest.json"), 50)],
    [
      "a manifest of another version",
      (dir) => {
        const path = join(dir, "manifest.json");
        writeFileSync(path, readFileSync(path, "utf8").replace(/"formatVersion": \d+/, '"formatVersion": 999'));
      },
    ],
  ])("does not trust %s, and rebuilds", async (_, damage) => {
    const { dir, manifest } = await ensure();
    damage(dir);
    await expect(verifyArtifact(dir, hashFile)).rejects.toMatchObject({ code: "invalid_artifact" });
    const again = await ensure();
    expect(again).toEqual({ dir, manifest, compiled: true });
    await expect(verifyArtifact(dir, hashFile)).resolves.toEqual(manifest);
    expect((await ensure()).compiled).toBe(false);
  });

  it("serves several at once, and leaves nothing but the artifact", async () => {
    const results = await Promise.all([ensure(), ensure(), ensure(), ensure()]);
    for (const { dir, manifest } of results) {
      expect(dir).toBe(results[0].dir);
      expect(manifest).toEqual(results[0].manifest);
    }
    await verifyArtifact(results[0].dir, hashFile);
    expect(readdirSync(cacheDir)).toHaveLength(1);
  });

  it("is never missing while several processes damage and mend it", { timeout: 120_000 }, async () => {
    const { dir } = await ensure();
    let isMissing = false;
    const children = [1, 2, 3].map(() =>
      promisify(execFile)(process.execPath, [
        "--import",
        "tsx",
        "test/compiler/ensure-child.ts",
        modelDir,
        cacheDir,
        String(numCases(12)),
      ]),
    );
    const all = Promise.all(children);
    for (let isOver = false; !isOver; ) {
      isMissing ||= !existsSync(join(dir, "manifest.json"));
      isOver = await Promise.race([
        all.then(() => true),
        new Promise<false>((resolve) => setImmediate(resolve, false)),
      ]);
    }
    expect(isMissing).toBe(false);
    await ensure();
    await verifyArtifact(dir, hashFile);
  });

  it("refuses a checkpoint that changes while it is compiled", async () => {
    let isChanged = false;
    const onProgress = () => {
      if (!isChanged) editConfig(modelDir, { layer_norm_epsilon: 1e-6 });
      isChanged = true;
    };
    const compiling = ensureArtifact({ modelDir, precision: "f32", cacheDir, onProgress });
    await expect(compiling).rejects.toMatchObject({ code: "invalid_checkpoint" });
    expect(readdirSync(cacheDir)).toEqual([]);
  });

  it("leaves nothing behind when compiling fails", async () => {
    editConfig(modelDir, { state_size: 5 });
    await expect(ensure()).rejects.toMatchObject({ code: "invalid_checkpoint" });
    expect(readdirSync(cacheDir)).toEqual([]);
  });

  it("reports progress up to the whole", async () => {
    const seen: number[] = [];
    await ensureArtifact({
      modelDir,
      precision: "f32",
      cacheDir,
      onProgress: ({ done, total, message }) => {
        expect(message).toContain("f32");
        seen.push(done / total);
      },
    });
    expect(seen.at(-1)).toBe(1);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
  });
});

describe("FileHasher", () => {
  const SETTLED_MS = 10_000;
  const file = () => join(modelDir, "model.safetensors");
  const hasher = (rememberedBytes: number) =>
    new FileHasher({ recordDir: join(cacheDir, "hashes"), rememberedBytes, nowMs: () => Date.now() + SETTLED_MS });

  it("reads small files every time", async () => {
    const hash = await hasher(1e9).hash(file());
    const { atime, mtime } = statSync(file());
    flipByte(file());
    utimesSync(file(), atime, mtime);
    expect(await hasher(1e9).hash(file())).not.toBe(hash);
    expect(existsSync(join(cacheDir, "hashes"))).toBe(false);
  });

  it("remembers large ones until size, times or inode change", async () => {
    const hash = await hasher(0).hash(file());
    const [record] = readdirSync(join(cacheDir, "hashes"));
    const recordPath = join(cacheDir, "hashes", record!);
    writeFileSync(recordPath, readFileSync(recordPath, "utf8").replace(hash, "0".repeat(64)));
    expect(await hasher(0).hash(file())).toBe("0".repeat(64)); // from the record
    flipByte(file());
    const changed = await hasher(0).hash(file());
    expect(changed).toBe(await hashFile(file()));
    expect(changed).not.toBe(hash);
  });

  it("does not remember a file that has only just been written", async () => {
    await new FileHasher({ recordDir: join(cacheDir, "hashes"), rememberedBytes: 0 }).hash(file());
    expect(existsSync(join(cacheDir, "hashes"))).toBe(false);
  });
});
