/**
 * The tiny DenseMamba fixture as an f32 artifact in a temporary folder, and variants of it that are
 * broken in one way.
 */
import { cp, mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { compileModel } from "../../src/compiler/compile.ts";
import type { Manifest } from "../../src/model/artifact.ts";

const MODEL_DIR = path.join(import.meta.dirname, "../fixtures/torch-tiny-densemamba");

export class CompiledTiny {
  readonly dir: string;
  readonly #root: string;

  static async create(): Promise<CompiledTiny> {
    const root = await mkdtemp(path.join(tmpdir(), "densemamba-runtime-"));
    const dir = path.join(root, "intact");
    await compileModel({ modelDir: MODEL_DIR, precision: "f32", outDir: dir });
    return new CompiledTiny(root, dir);
  }

  private constructor(root: string, dir: string) {
    this.#root = root;
    this.dir = dir;
  }

  /** A copy whose manifest `edit` has changed. */
  async withManifest(name: string, edit: (manifest: Manifest) => Manifest): Promise<string> {
    const dir = path.join(this.#root, name);
    await cp(this.dir, dir, { recursive: true });
    const file = path.join(dir, "manifest.json");
    await writeFile(file, JSON.stringify(edit(JSON.parse(await readFile(file, "utf8")))));
    return dir;
  }

  /** A copy whose graph is cut off after `numBytes`. */
  async withTruncatedGraph(name: string, numBytes: number): Promise<string> {
    const dir = await this.withManifest(name, (manifest) => manifest);
    const { graph }: Manifest = JSON.parse(await readFile(path.join(dir, "manifest.json"), "utf8"));
    await truncate(path.join(dir, graph), numBytes);
    return dir;
  }

  async remove(): Promise<void> {
    await rm(this.#root, { recursive: true, force: true });
  }
}
