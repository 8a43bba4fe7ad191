import { readFileSync, statSync } from "node:fs";
import { describe, expect, it } from "vitest";

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

  // Old bug: packages for other platforms were missing, and `npm ci` refused the lock on every machine.
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
    expect(versions.filter((version) => !/^\d+\.\d+\.\d+$/.test(version))).toEqual([]);
    expect(devDependencies["@types/node"].split(".")[0]).toBe(/\d+/.exec(engines.node)![0]);
  });
});

// Old bug: npx links a checkout into its cache and makes the command executable once; a build made anew was not.
it("the build leaves the command executable", () => {
  const [command] = Object.values<string>(json("package.json").bin);
  expect(statSync(command!).mode & 0o111).not.toBe(0);
});
