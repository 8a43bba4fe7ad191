/**
 * The program as it is installed with ONNX Runtime's CUDA provider beside onnxruntime-node's
 * library, to be started on a machine of which the environment is given: without a driver, or with
 * the simulated device's libraries.
 */
import { cp, mkdir, mkdtemp, readdir, rm, symlink } from "node:fs/promises";
import path from "node:path";
import { BUILT } from "../helpers/program.ts";
import { PROVIDER_FOLDER } from "./simulated-cuda.ts";

const ORT = "node_modules/onnxruntime-node";

export class Installation {
  readonly dir: string;

  static async make(): Promise<Installation> {
    await mkdir(".cache", { recursive: true });
    const dir = await mkdtemp(path.resolve(".cache/installation-"));
    await mkdir(path.join(dir, "node_modules"));
    for (const name of await readdir("node_modules")) {
      if (path.join("node_modules", name) !== ORT)
        await symlink(path.resolve("node_modules", name), path.join(dir, "node_modules", name));
    }
    for (const name of ["kernels", "models"]) await symlink(path.resolve(name), path.join(dir, name));
    for (const name of ["package.json", BUILT, ORT]) await cp(name, path.join(dir, name), { recursive: true });
    for (const name of ["libonnxruntime_providers_cuda.so", "libonnxruntime_providers_shared.so"]) {
      const libraries = path.join(dir, ORT, "bin/napi-v6/linux/x64");
      await symlink(path.join(PROVIDER_FOLDER, name), path.join(libraries, name));
    }
    return new Installation(dir);
  }

  private constructor(dir: string) {
    this.dir = dir;
  }

  async remove(): Promise<void> {
    await rm(this.dir, { recursive: true });
  }
}
