/**
 * Artifacts on disk, keyed by what they were compiled from. A cached one is believed only after its
 * manifest and the hash of every file have been checked; otherwise it is compiled anew. Safe with
 * several processes at once: an artifact appears by renaming a finished folder.
 */
import { mkdir, mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { DenseMambaError } from "../errors.ts";
import type { Manifest } from "../model/artifact.ts";
import { MANIFEST_FILE, readManifest } from "../model/manifest.ts";
import { publishFolder } from "../model/publish-folder.ts";
import { invalidCheckpoint } from "../model/weights.ts";
import { type CompileOptions, compileModel } from "./compile.ts";
import { FileHasher } from "./file-hash.ts";
import { targetOf } from "./lower.ts";
import { hashModel } from "./source-hash.ts";

export interface EnsureOptions extends Omit<CompileOptions, "outDir" | "modelHash"> {
  /** Created if missing. */
  readonly cacheDir: string;
  /** Fails if it would have to compile. */
  readonly cachedOnly?: boolean;
}

export interface EnsuredArtifact {
  readonly dir: string;
  readonly manifest: Manifest;
  /** False if the cache had it. */
  readonly compiled: boolean;
}

const TEMPORARY_PREFIX = ".compiling-";
const STALE_TEMPORARY_MS = 24 * 60 * 60 * 1000;

/**
 * @throws `invalid_checkpoint`, or `unsupported_value` if the precision does not fit the model's
 * sizes; `invalid_artifact` with `cachedOnly` if there is none.
 */
export async function ensureArtifact(options: EnsureOptions): Promise<EnsuredArtifact> {
  const { modelDir, precision, cacheDir } = options;
  const target = targetOf(options);
  const hasher = new FileHasher({ recordDir: join(cacheDir, "hashes") });
  const hashFile = (path: string) => hasher.hash(path);
  const modelHash = await hashModel(modelDir, target, hashFile);
  const suffix = options.allowNonFinite ? "-non-finite" : "";
  const dir = join(cacheDir, `${basename(resolve(modelDir))}-${precision}-${modelHash.slice(0, 16)}${suffix}`);

  const cached = await verified(dir, modelHash, hashFile);
  if (cached !== undefined) return { dir, manifest: cached, compiled: false };
  if (options.cachedOnly) {
    throw new DenseMambaError(
      "invalid_artifact",
      `${modelDir} is not compiled to ${precision} in ${cacheDir}: run \`densemamba compile\` with the server's options, or start the server again`,
    );
  }

  await mkdir(cacheDir, { recursive: true });
  await removeStaleTemporaries(cacheDir);
  const temporary = await mkdtemp(join(cacheDir, TEMPORARY_PREFIX));
  try {
    const built = join(temporary, "built");
    const manifest = await compileModel({ ...options, outDir: built, modelHash });
    if ((await hashModel(modelDir, target, hashFile)) !== modelHash) {
      throw invalidCheckpoint(`${modelDir} changed while it was being compiled`);
    }
    await publishFolder(built, dir, MANIFEST_FILE);
    return { dir, manifest, compiled: true };
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

/**
 * Checks every byte that the manifest vouches for. Files above a size are believed by their time
 * stamps, see `FileHasher`.
 * @throws `invalid_artifact` naming the file, its size or hash, and the expected one.
 */
export async function verifyArtifact(dir: string, hashFile: (path: string) => Promise<string>): Promise<Manifest> {
  const manifest = await readManifest(dir);
  for (const { name, bytes, sha256 } of manifest.files) {
    const path = join(dir, name);
    const fail = (what: string, cause?: unknown) =>
      new DenseMambaError("invalid_artifact", `${path}: ${what}`, { cause });
    const size = await stat(path).then(
      (info) => info.size,
      (cause) => {
        throw fail("cannot read it", cause);
      },
    );
    if (size !== bytes) throw fail(`${size} bytes, the manifest says ${bytes}`);
    const hash = await hashFile(path);
    if (hash !== sha256) throw fail(`its sha256 is ${hash}, the manifest says ${sha256}`);
  }
  return manifest;
}

async function verified(
  dir: string,
  modelHash: string,
  hashFile: (path: string) => Promise<string>,
): Promise<Manifest | undefined> {
  try {
    const manifest = await verifyArtifact(dir, hashFile);
    return manifest.modelHash === modelHash ? manifest : undefined;
  } catch (error) {
    if (error instanceof DenseMambaError && error.code === "invalid_artifact") return undefined;
    throw error;
  }
}

/** Folders of compilations that were killed. */
async function removeStaleTemporaries(cacheDir: string): Promise<void> {
  for (const name of await readdir(cacheDir)) {
    if (!name.startsWith(TEMPORARY_PREFIX)) continue;
    const path = join(cacheDir, name);
    const info = await stat(path).catch(ignoreMissing);
    if (info && Date.now() - info.mtimeMs > STALE_TEMPORARY_MS) await rm(path, { recursive: true, force: true });
  }
}

function ignoreMissing(error: unknown): undefined {
  if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
  throw error;
}
