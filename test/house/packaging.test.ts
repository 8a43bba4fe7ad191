import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { builtinModules } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { importsOf, packageOf } from "./import-rules.ts";
import { Registry } from "./registry.ts";

const run = promisify(execFile);

const json = (file: string) => JSON.parse(readFileSync(file, "utf8"));

interface LockEntry {
  readonly resolved?: string;
  readonly hasInstallScript?: boolean;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

describe("package-lock.json", () => {
  const entries: [string, LockEntry][] = Object.entries(json("package-lock.json").packages);
  const { allowScripts } = json("package.json");

  it("names no registry", () => {
    expect(entries.filter(([, { resolved }]) => resolved !== undefined).map(([name]) => name)).toEqual([]);
  });

  // Old bug: packages for other platforms were missing, and `npm ci` refused the lock on every
  // machine.
  it("holds every platform's optional packages", () => {
    const names = new Set(entries.map(([name]) => name.replace(/^.*node_modules\//, "")));
    const missing = entries
      .flatMap(([, { optionalDependencies = {} }]) => Object.keys(optionalDependencies))
      .filter((name) => !names.has(name));
    expect(missing).toEqual([]);
  });

  it("lets no download and no telemetry run at install: `npm run lock` tidies it", () => {
    const withScript = entries.filter(([, { hasInstallScript }]) => hasInstallScript).map(([name]) => name);
    expect(withScript).not.toContain("node_modules/onnxruntime-node");
    expect(withScript).not.toContain("node_modules/@scarf/scarf");
    // npm 11 and later ask about each install script that package.json has no word on.
    for (const name of withScript) expect(allowScripts).toHaveProperty(name.replace(/^.*node_modules\//, ""));
  });
});

describe("package.json", () => {
  const { bin, files, license, engines, dependencies, devDependencies } = json("package.json");

  it("ships what the program reads at run time", () => {
    expect(bin.densemamba).toBe("dist/cli/main.js");
    const read = ["dist", "kernels/*.c", "kernels/*.h", "models/densemamba-tales-4m", "openapi.yaml"];
    expect(files).toEqual(expect.arrayContaining(read));
    expect(license).toBe("Apache-2.0");
    expect(readFileSync("LICENSE", "utf8")).toContain("Apache License\n                           Version 2.0");
  });

  it("pins every dependency, and types for the oldest Node that it supports", () => {
    const versions = Object.values<string>({ ...dependencies, ...devDependencies });
    expect(versions.filter((version) => !/^\d+\.\d+\.\d+(?:-[\w.]+)?$/.test(version))).toEqual([]);
    expect(devDependencies["@types/node"].split(".")[0]).toBe(/\d+/.exec(engines.node)![0]);
  });
});

// Old bug: npx links a checkout into its cache and makes the command executable once; a build made
// anew was not.
it("the build leaves the command executable", () => {
  const [command] = Object.values<string>(json("package.json").bin);
  expect(statSync(command!).mode & 0o111).not.toBe(0);
});

// Compiles and packs everything anew: half a minute.
describe.runIf(process.env.CI)("the packed package", () => {
  const { files, dependencies } = json("package.json");
  let dir: string;
  let installed: string;
  let tarball: string;

  // Built and packed in a folder of its own: other tests run the checkout's build meanwhile.
  beforeAll(async () => {
    dir = await mkdtemp(path.join(tmpdir(), "packed-"));
    const source = path.join(dir, "source");
    const sources = ["package.json", "LICENSE", "README.md", ...files].map((name: string) =>
      name.replace(/\/\*.*$/, ""),
    );
    for (const name of new Set(sources)) {
      // What is made for the package alone may not be here.
      if (name !== "dist" && existsSync(name)) await cp(name, path.join(source, name), { recursive: true });
    }
    const dist = path.join(source, "dist");
    await run("node_modules/.bin/tsc", ["-p", "tsconfig.build.json", "--noCheck", "--outDir", dist]);
    const env = { ...process.env, NODE_ENV: "production" };
    const page = ["build", "--config", "web/vite.config.ts", "--outDir", path.join(dist, "web")];
    await run("node_modules/.bin/vite", page, { env });
    for (const name of ["package-lock.json", "scripts/shrinkwrap.mjs"]) await cp(name, path.join(source, name));
    await run(process.execPath, [path.join(source, "scripts/shrinkwrap.mjs")]);
    const pack = ["pack", "--ignore-scripts", "--json", "--pack-destination", dir, source];
    const [{ filename }] = JSON.parse((await run("npm", pack)).stdout);
    tarball = path.join(dir, filename);
    installed = path.join(dir, "node_modules", "densemamba");
    await mkdir(installed, { recursive: true });
    await run("tar", ["-xzf", tarball, "-C", installed, "--strip-components=1"]);
    await symlink(path.resolve("node_modules"), path.join(installed, "node_modules"));
  });
  afterAll(() => rm(dir, { recursive: true, force: true }));

  it("needs nothing at run time but its own files, Node and its dependencies", () => {
    const names = readdirSync(installed, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".js"));
    const modules = names.filter((name) => name.startsWith("dist/") && !name.startsWith("dist/web/"));
    expect(modules.length).toBeGreaterThan(100);
    const imported = modules.flatMap((name) => {
      const specifiers = importsOf(readFileSync(path.join(installed, name), "utf8"));
      for (const specifier of specifiers.filter((each) => each.startsWith("."))) {
        expect(names, `${name} imports ${specifier}`).toContain(path.join(path.dirname(name), specifier));
      }
      return specifiers.filter((each) => /^@?[a-z][\w./-]*$/.test(each));
    });
    const packages = [...new Set(imported.map(packageOf))].filter((name) => !builtinModules.includes(name));
    expect(packages.filter((name) => !Object.hasOwn(dependencies, name))).toEqual([]);
  });

  it("holds no peers, no page of results and no soak test", () => {
    const names = readdirSync(path.join(installed, "dist"), { recursive: true, encoding: "utf8" });
    expect(names).toContain("bench/bench.js");
    expect(names.filter((name) => /peers|llama|gguf|soak|^bench.*(?:svg|page)/.test(name))).toEqual([]);
  });

  it("holds the page, compressed as well", () => {
    const names = readdirSync(path.join(installed, "dist/web"), { recursive: true, encoding: "utf8" });
    expect(names).toEqual(expect.arrayContaining(["index.html", "index.html.br", "index.html.gz"]));
    for (const type of [/\.js$/, /\.css\.br$/, /\.js\.gz$/]) expect(names.some((name) => type.test(name))).toBe(true);
  });

  it("runs `densemamba bench`", async () => {
    const command = [
      path.join(installed, "dist/cli/main.js"),
      "bench",
      "--suite",
      "session",
      "--session-tokens",
      "100",
    ];
    const options = ["--threads", "1", "--kernels", "off", "--cache-dir", path.join(dir, "cache")];
    const { stdout } = await run(process.execPath, [...command, ...options], { cwd: dir });
    const { figures } = JSON.parse(stdout.trim().split("\n").at(-1)!) as {
      figures: { suite: string; value: number }[];
    };
    expect([...new Set(figures.map(({ suite }) => suite))]).toEqual(["machine", "session"]);
    expect(figures[0]!.value).toBeGreaterThan(0);
  });

  it("can be imported, as docs/library.md shows, and nothing else of it", async () => {
    const example = /```js\n([\s\S]*?)```/.exec(readFileSync("docs/library.md", "utf8"))![1]!;
    // As on a machine without a compiler, and quickly.
    const fast = `{ cacheDir: ${JSON.stringify(path.join(dir, "cache"))}, kernels: "off", threads: 1, `;
    await writeFile(path.join(dir, "example.mjs"), example.replaceAll(/(loadModel|createServer)\(\{ /g, `$1(${fast}`));
    const { stdout } = await run(process.execPath, ["example.mjs"], { cwd: dir });
    const [tale, more, , status] = stdout.trim().split("\n").slice(-4);
    expect(tale!.length).toBeGreaterThan(20);
    expect(more).toMatch(/ \[1\d of 1\d tokens cached\]$/);
    expect(status).toBe("200");
    const deep = run(process.execPath, ["--input-type=module", "-e", 'import "densemamba/dist/errors.js"'], {
      cwd: dir,
    });
    await expect(deep).rejects.toThrow("ERR_PACKAGE_PATH_NOT_EXPORTED");
  }, 120_000);

  it("has types for a program that imports it", async () => {
    const program = `import { DenseMambaError, loadModel, type Usage } from "densemamba";
      const model = await loadModel({ maxBatch: 4, sessionBytes: "1GiB" });
      const usage: Usage = (await model.complete("x")).usage;
      // @ts-expect-error: there is no such option
      await loadModel({ maxBatches: 4 });
      export const isOurs = (error: unknown) => error instanceof DenseMambaError && error.code === "queue_full" && usage;`;
    await writeFile(path.join(dir, "program.mts"), program);
    const options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2023", "--types", "node"];
    const root = ["--typeRoots", path.resolve("node_modules/@types")];
    // Elsewhere than this repository, whose own settings would be refused beside a file.
    await run(path.resolve("node_modules/.bin/tsc"), [...options, ...root, "program.mts"], { cwd: dir });
  }, 120_000);

  it("has no source maps, and every file that its README leads to", () => {
    const names = readdirSync(installed, { recursive: true, encoding: "utf8" });
    expect(names.filter((name) => name.startsWith("dist/") && name.endsWith(".map"))).toEqual([]);
    const links = [...readFileSync(path.join(installed, "README.md"), "utf8").matchAll(/\]\(([^)#\s]+)/g)];
    const dead = links.map(([, link]) => link!).filter((link) => !/^https?:/.test(link) && !names.includes(link));
    expect(dead).toEqual([]);
  });

  it("brings its dependencies' versions, without the script that downloads CUDA, and without development's", () => {
    const { packages } = json(path.join(installed, "npm-shrinkwrap.json"));
    const tested = json("package-lock.json").packages;
    expect(packages["node_modules/onnxruntime-node"]).toEqual(tested["node_modules/onnxruntime-node"]);
    expect(packages["node_modules/onnxruntime-node"]).not.toHaveProperty("hasInstallScript");
    for (const name of Object.keys(dependencies)) expect(packages).toHaveProperty([`node_modules/${name}`]);
    for (const name of ["typescript", "vitest"]) expect(packages).not.toHaveProperty([`node_modules/${name}`]);
  });

  // Half a gigabyte, from the registry.
  it.runIf(process.env.CI)(
    "installs from a registry without any other download, and runs",
    async () => {
      const registry = await Registry.start(json("package.json"), readFileSync(tarball));
      const prefix = path.join(dir, "prefix");
      const install = [
        "install",
        "--global",
        "--prefix",
        prefix,
        "--registry",
        registry.url,
        "--no-audit",
        "densemamba",
      ];
      await run("npm", install, { env: { ...process.env, CI: "", ONNXRUNTIME_NODE_INSTALL: undefined } });
      registry.close();
      const own = path.join(prefix, "lib/node_modules/densemamba");
      const libraries = readdirSync(path.join(own, "node_modules/onnxruntime-node/bin"), { recursive: true });
      expect(libraries.filter((name) => String(name).includes("providers_cuda"))).toEqual([]);
      const { stdout } = await run(path.join(prefix, "bin/densemamba"), [
        "score",
        "--token-ids",
        "1,2",
        "--kernels",
        "off",
      ]);
      expect(JSON.parse(stdout).positions).toHaveLength(2);
    },
    900_000,
  );

  it("has the commands `bench` and `bench-server`, and none for development", async () => {
    const { stdout } = await run(process.execPath, [path.join(installed, "dist/cli/main.js"), "--help"]);
    expect(stdout.match(/\bbench[\w-]*/g)).toEqual(["bench", "bench-server"]);
  });
});
