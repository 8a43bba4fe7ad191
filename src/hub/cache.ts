/**
 * One repository's folder in Hugging Face's cache. The layout is that of its own tools, so that
 * each finds what the other has pulled:
 *
 *   models--<org>--<name>/blobs/<etag>                the bytes; `<etag>.incomplete` while they arrive
 *                         snapshots/<commit>/<file>   links to blobs
 *                         refs/<branch or tag>        the commit that it points to
 */
import { randomUUID } from "node:crypto";
import { copyFile, mkdir, readdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { isComplete, type Part } from "./files.ts";
import { isCommit, type ModelId } from "./model-id.ts";

const REPO_PREFIX = "models--";

/** A snapshot's folder, or the file in it that the model is named by. */
export function modelIn(dir: string, { file }: ModelId): string {
  return file === undefined ? dir : path.join(dir, file);
}

export class RepoCache {
  readonly #folder: string;

  constructor(cacheDir: string, repo: string) {
    this.#folder = path.join(cacheDir, REPO_PREFIX + repo.replaceAll("/", "--"));
  }

  /** The model in a snapshot of its revision, see `modelIn`, if the part is complete in it. */
  async find(id: ModelId, part: Part): Promise<string | undefined> {
    const { revision } = id;
    const commit = isCommit(revision) ? revision : await this.#commitOf(revision);
    if (commit === undefined) return undefined;
    const dir = this.snapshotDir(commit);
    return isComplete(dir, part, id) ? modelIn(dir, id) : undefined;
  }

  snapshotDir(commit: string): string {
    return path.join(this.#folder, "snapshots", commit);
  }

  blobPath(etag: string): string {
    return path.join(this.#folder, "blobs", etag);
  }

  /** Links a file's name in a snapshot to its blob. Replaces what is there. */
  async link(commit: string, file: string, etag: string): Promise<void> {
    const place = path.join(this.snapshotDir(commit), file);
    await replace(place, async (temporary) => {
      try {
        await symlink(path.relative(path.dirname(place), this.blobPath(etag)), temporary);
      } catch (error) {
        // Windows lets only some users make links.
        if (!isCode(error, "EPERM", "ENOSYS", "ENOTSUP")) throw error;
        await copyFile(this.blobPath(etag), temporary);
      }
    });
  }

  /** Records where a branch or a tag points. */
  async noteRevision(revision: string, commit: string): Promise<void> {
    if (isCommit(revision)) return;
    await replace(this.#refFile(revision), (temporary) => writeFile(temporary, commit));
  }

  async #commitOf(revision: string): Promise<string | undefined> {
    const text = await readFile(this.#refFile(revision), "utf8").catch(() => "");
    return isCommit(text.trim()) ? text.trim() : undefined;
  }

  #refFile(revision: string): string {
    return path.join(this.#folder, "refs", ...revision.split("/"));
  }
}

/** By renaming, so that another process never finds the name gone, or half of the file. */
async function replace(place: string, make: (temporary: string) => Promise<void>): Promise<void> {
  await mkdir(path.dirname(place), { recursive: true });
  const temporary = `${place}.${randomUUID()}`;
  try {
    await make(temporary);
    await rename(temporary, place);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** Models that can be served in some revision, sorted. */
async function cachedModels(cacheDir: string): Promise<string[]> {
  const repos: string[] = [];
  for (const name of (await readdirOrNone(cacheDir)).sort()) {
    if (!name.startsWith(REPO_PREFIX)) continue;
    const snapshots = path.join(cacheDir, name, "snapshots");
    const commits = await readdirOrNone(snapshots);
    if (commits.some((commit) => isComplete(path.join(snapshots, commit), "model"))) {
      repos.push(name.slice(REPO_PREFIX.length).replace("--", "/"));
    }
  }
  return repos;
}

/** What can be served without a network, for messages. */
export async function describeCache(cacheDir: string, wanted: ModelId): Promise<string> {
  const repos = await cachedModels(cacheDir);
  const others = repos.filter((repo) => repo !== wanted.repo);
  const has = repos.includes(wanted.repo) ? `other revisions of ${wanted.repo}` : `no ${wanted.repo}`;
  return `the cache ${cacheDir} has ${has}${others.length > 0 ? `, but ${others.join(", ")}` : " and nothing else"}`;
}

function readdirOrNone(dir: string): Promise<string[]> {
  return readdir(dir).catch((error) => {
    if (isCode(error, "ENOENT", "ENOTDIR")) return [];
    throw error;
  });
}

function isCode(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && "code" in error && codes.includes(String(error.code));
}
