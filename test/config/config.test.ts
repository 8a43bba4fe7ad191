import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { describeConfig } from "../../src/cli/flags.ts";
import { loadConfig, parseConfig } from "../../src/config/load.ts";
import { readConfig } from "../../src/config/process.ts";
import { configOptions } from "../../src/config/schema.ts";
import { DenseMambaError } from "../../src/errors.ts";

const load = (flags: Record<string, unknown> = {}, env: Record<string, string> = {}, file: unknown = {}) =>
  loadConfig({ flags, env, file });

function problemsOf(run: () => unknown): string[] {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(DenseMambaError);
    expect((error as DenseMambaError).code).toBe("invalid_config");
    return (error as DenseMambaError).message.split("\n");
  }
  throw new Error("the configuration was accepted");
}

describe("precedence", () => {
  it("takes flags before environment before file before defaults", () => {
    const env = { DENSEMAMBA_PORT: "2", DENSEMAMBA_MAX_BATCH: "20" };
    const file = { port: 3, maxBatch: 30, maxQueue: 300 };
    const config = load({ port: "1" }, env, file);
    expect(config).toMatchObject({ port: 1, maxBatch: 20, maxQueue: 300, prefillChunk: 256 });
  });

  it("ignores a weaker source's invalid value if a stronger source has a valid one", () => {
    expect(load({ port: "1" }, { DENSEMAMBA_PORT: "none" }, { port: -5 }).port).toBe(1);
  });

  it("treats an empty environment variable as not given", () => {
    expect(load({}, { DENSEMAMBA_PORT: "" }).port).toBe(8080);
  });

  it("keeps the cache under XDG_CACHE_HOME when it is set", () => {
    expect(load({}, { XDG_CACHE_HOME: "/x" }).cacheDir).toBe("/x/densemamba");
    expect(load({}, {}).cacheDir).toMatch(/\.cache.densemamba$/);
    expect(load({ cacheDir: "/y" }, { XDG_CACHE_HOME: "/x" }).cacheDir).toBe("/y");
  });
});

describe("a refusal", () => {
  it("lists all problems together, each with its source, its bound and the value given", () => {
    const problems = problemsOf(() =>
      load({ port: "70000", device: "gpu" }, { DENSEMAMBA_MAX_BATCH: "0" }, { maxQueue: 1.5 }),
    );
    expect(problems.toSorted()).toEqual([
      '--device must be one of auto, cpu, cuda, "gpu" given',
      '--port must be an integer from 0 to 65535, "70000" given',
      'DENSEMAMBA_MAX_BATCH must be an integer from 1 to 1024, "0" given',
      "maxQueue in the config file must be an integer from 0 to 1000000, 1.5 given",
    ]);
  });

  it("names the nearest known names for unknown ones", () => {
    const problems = problemsOf(() =>
      load({}, { DENSEMAMBA_MAXBATCH: "3", DENSEMAMBA_MODLE: "x", OTHER: "y" }, { max_batch: 2, zzzzzzzzzzz: 1 }),
    );
    expect(problems).toEqual([
      "unknown key max_batch in the config file; did you mean maxBatch?",
      "unknown key zzzzzzzzzzz in the config file",
      "unknown variable DENSEMAMBA_MAXBATCH in the environment; did you mean DENSEMAMBA_MAX_BATCH?",
      "unknown variable DENSEMAMBA_MODLE in the environment; did you mean DENSEMAMBA_MODEL?",
    ]);
  });

  it("says that the file must hold an object", () => {
    expect(problemsOf(() => load({}, {}, [1]))).toEqual(["the config file must hold a JSON object, [1] given"]);
  });

  it("does not repeat a refused key, which may be a secret with a typo", () => {
    const [problem] = problemsOf(() => load({ apiKeys: ["top secret"] }));
    expect(problem).toContain("--api-key");
    expect(problem).not.toContain("secret");
  });
});

describe("secrets in files", () => {
  const FILES: Record<string, string> = {
    "/run/keys": "a1\r\n\n b2\n",
    "/run/url": "valkey://:p@h\n",
    "/run/empty": "\n",
  };
  const parse = (env: Record<string, string>, flags: Record<string, unknown> = {}, file: unknown = {}) =>
    parseConfig({ flags, env, file, findHome: () => "/run", readText: (name) => FILES[name] });

  it("are read from the files that variables with _FILE name, keys one in each line", () => {
    const { config, fromFiles } = parse({
      DENSEMAMBA_API_KEYS_FILE: "/run/keys",
      DENSEMAMBA_VALKEY_URL_FILE: "~/url",
    });
    expect(config).toMatchObject({ apiKeys: ["a1", "b2"], valkeyUrl: "valkey://:p@h" });
    expect([...fromFiles]).toEqual(expect.arrayContaining(["apiKeys", "valkeyUrl"]));
  });

  it("give way to flags, and are stronger than the config file", () => {
    const env = { DENSEMAMBA_API_KEYS_FILE: "/run/keys" };
    const { config, fromFiles } = parse(env, { apiKeys: ["c3"] });
    expect([config.apiKeys, fromFiles.has("apiKeys")]).toEqual([["c3"], false]);
    expect(parse(env, {}, { apiKeys: ["d4"] }).config.apiKeys).toEqual(["a1", "b2"]);
    expect(parse({}, {}, { apiKeys: ["d4"] }).fromFiles.has("apiKeys")).toBe(true);
  });

  it("that cannot be read, are empty, or are given twice are refused, never taken for none", () => {
    expect(problemsOf(() => parse({ DENSEMAMBA_API_KEYS_FILE: "/nowhere" }))).toEqual([
      "DENSEMAMBA_API_KEYS_FILE names a file that cannot be read: /nowhere",
    ]);
    expect(problemsOf(() => parse({ DENSEMAMBA_API_KEYS_FILE: "/run/empty" }))[0]).toMatch(
      /^the file that DENSEMAMBA_API_KEYS_FILE names must be a list of keys/,
    );
    expect(problemsOf(() => parse({ DENSEMAMBA_API_KEYS_FILE: "/run/keys", DENSEMAMBA_API_KEYS: "x" }))).toEqual([
      "DENSEMAMBA_API_KEYS and DENSEMAMBA_API_KEYS_FILE are both given",
    ]);
    expect(problemsOf(() => parse({ DENSEMAMBA_MODEL_FILE: "/run/keys" }))[0]).toContain("unknown variable");
  });

  it("are not in what --print-config shows, which names each source", () => {
    const parsed = parse({ DENSEMAMBA_API_KEYS_FILE: "/run/keys", DENSEMAMBA_MAX_BATCH: "8" }, { keepAlive: "never" });
    const shown = JSON.parse(describeConfig(parsed));
    expect(Object.keys(shown)).toEqual(configOptions.map(({ key }) => key));
    expect(shown).toMatchObject({
      apiKeys: { value: "hidden", from: "the file that DENSEMAMBA_API_KEYS_FILE names" },
      valkeyUrl: { value: null, from: "default" },
      maxBatch: { value: 8, from: "DENSEMAMBA_MAX_BATCH" },
      maxQueue: { value: 256, from: "default" },
      keepAlive: { value: "never", from: "--keep-alive" },
    });
    expect(JSON.stringify(shown)).not.toMatch(/a1|b2/);
  });
});

/** What Kubernetes sets in a pod for services with these names, and Docker for a link. */
const SERVICE_LINKS = {
  DENSEMAMBA_SERVICE_HOST: "10.96.1.2",
  DENSEMAMBA_SERVICE_PORT: "8080",
  DENSEMAMBA_SERVICE_PORT_HTTP: "8080",
  DENSEMAMBA_PORT: "tcp://10.96.1.2:8080",
  DENSEMAMBA_PORT_8080_TCP: "tcp://10.96.1.2:8080",
  DENSEMAMBA_PORT_8080_TCP_PROTO: "tcp",
  DENSEMAMBA_PORT_8080_TCP_PORT: "8080",
  DENSEMAMBA_PORT_8080_TCP_ADDR: "10.96.1.2",
  DENSEMAMBA_API_SERVICE_HOST: "10.96.1.3",
  DENSEMAMBA_API_SERVICE_PORT: "443",
  DENSEMAMBA_API_PORT: "udp://10.96.1.3:443",
  DENSEMAMBA_API_PORT_443_UDP: "udp://10.96.1.3:443",
  DENSEMAMBA_API_PORT_443_UDP_ADDR: "10.96.1.3",
};

describe("variables that describe services", () => {
  it("are not options, whatever their names", () => {
    expect(load({}, SERVICE_LINKS)).toEqual(load({}));
    expect(load({}, { ...SERVICE_LINKS, DENSEMAMBA_PORT: "81" }).port).toBe(81);
  });

  it("hide no mistakes", () => {
    expect(problemsOf(() => load({}, { DENSEMAMBA_PORT: "http://x" }))).toHaveLength(1);
    expect(problemsOf(() => load({}, { DENSEMAMBA_API_PORT: "443" }))).toHaveLength(1);
  });
});

describe("paths", () => {
  const at = (findHome: () => string | undefined, env: Record<string, string>, file: unknown = {}) =>
    loadConfig({ flags: {}, env, file, findHome });
  const atHome = (env: Record<string, string>, file?: unknown) => at(() => "/home/me", env, file);

  it("may begin with `~`, even if no shell has expanded it", () => {
    const config = atHome({ DENSEMAMBA_STORE_DIR: "~/states", DENSEMAMBA_CACHE_DIR: "~" }, { tokenizer: "~/t" });
    expect(config).toMatchObject({ storeDir: "/home/me/states", cacheDir: "/home/me", tokenizer: "/home/me/t" });
    expect(atHome({ XDG_CACHE_HOME: "~/xc" }).cacheDir).toBe("/home/me/xc/densemamba");
    expect(atHome({ DENSEMAMBA_STORE_DIR: "a~/b" }).storeDir).toBe("a~/b");
  });

  it("need no home folder unless they name it", () => {
    const homeless = (env: Record<string, string>) => at(() => undefined, env);
    expect(homeless({ DENSEMAMBA_CACHE_DIR: "/x" }).cacheDir).toBe("/x");
    expect(homeless({ XDG_CACHE_HOME: "/x" }).cacheDir).toBe("/x/densemamba");
    const problem = ", and this user has no home folder: set HOME, or give the path";
    expect(problemsOf(() => homeless({}))).toEqual([`no --cache-dir is given${problem}`]);
    expect(problemsOf(() => homeless({ DENSEMAMBA_CACHE_DIR: "/x", DENSEMAMBA_STORE_DIR: "~/s" }))).toEqual([
      `DENSEMAMBA_STORE_DIR is ~/s${problem}`,
    ]);
  });
});

describe("options that need another one", () => {
  it("are refused alone, with the name of what is missing", () => {
    const problems = problemsOf(() =>
      load({ storeBytes: "1GiB" }, { DENSEMAMBA_SHARE_PREFIXES: "true" }, { valkeyTimeoutMs: 100, prefixDiskBytes: 5 }),
    );
    expect(problems.toSorted()).toEqual([
      "--store-bytes needs --store-dir",
      "DENSEMAMBA_SHARE_PREFIXES needs --valkey-url",
      "prefixDiskBytes in the config file needs --store-dir",
      "valkeyTimeoutMs in the config file needs --valkey-url",
    ]);
  });

  it("are accepted with it, wherever either comes from", () => {
    const config = load({ storeBytes: "1GiB" }, { DENSEMAMBA_STORE_DIR: "/x" }, { prefixDiskBytes: 5 });
    expect(config).toMatchObject({ storeDir: "/x", storeBytes: 2 ** 30, prefixDiskBytes: 5 });
  });

  it("need nothing if they are off; what they need must not be off", () => {
    expect(load({ sharePrefixes: false, prefixDiskBytes: 0 }).sharePrefixes).toBe(false);
    expect(problemsOf(() => load({ prefixDiskBytes: 5, storeDir: "/x", prefixBytes: 0 }))).toEqual([
      "--prefix-disk-bytes needs --prefix-bytes above 0",
    ]);
  });
});

describe("kinds of value", () => {
  it.each([
    ["1500", 1500],
    [1500, 1500],
    ["90s", 90_000],
    ["1.5 min", 90_000],
    ["12h", 43_200_000],
    ["30 d", 2_592_000_000],
  ])("reads the time %j as %i ms", (given, ms) => {
    expect(load({ sessionTtlMs: given }).sessionTtlMs).toBe(ms);
  });

  it.each(["soon", "-1s", "5 weeks", "s", 3651 * 86_400_000])("refuses the time %j", (given) => {
    expect(problemsOf(() => load({ sessionTtlMs: given }))[0]).toContain(`${JSON.stringify(given)} given`);
  });

  it.each(["valkey://host", "redis://user:pass@host:1234/5", "rediss://host", "valkeys://[::1]:1"])(
    "takes %s for a Valkey server",
    (url) => {
      expect(load({ valkeyUrl: url }).valkeyUrl).toBe(url);
    },
  );

  it.each(["http://secret", "secret", "valkey://", "valkey:///secret", "redis://secret:x"])(
    "does not take %s for one, and does not repeat what may hold a password",
    (url) => {
      const [problem] = problemsOf(() => load({ valkeyUrl: url }));
      expect(problem).toMatch(/^--valkey-url must be a URL such as valkey:/);
      expect(problem).not.toContain("secret");
    },
  );

  it.each([
    ["4096", 4096],
    [4096, 4096],
    ["64KiB", 65_536],
    ["1.5 GiB", 1_610_612_736],
    ["10mb", 10_000_000],
    ["0", 0],
  ])("reads the size %j as %i bytes", (given, bytes) => {
    expect(load({ sessionBytes: given }).sessionBytes).toBe(bytes);
  });

  it.each(["", "12 parsecs", "-1", "1e3", "GiB", null, {}, true])("refuses the size %j", (given) => {
    if (given === null) expect(load({ sessionBytes: given }).sessionBytes).toBe("auto");
    else expect(problemsOf(() => load({ sessionBytes: given }))).toHaveLength(1);
  });

  it("reads lists from repeated flags, comma-separated variables and JSON arrays", () => {
    const expected = ["a1", "b2"];
    expect(load({ apiKeys: ["a1", "b2"] }).apiKeys).toEqual(expected);
    expect(load({}, { DENSEMAMBA_API_KEYS: "a1, b2" }).apiKeys).toEqual(expected);
    expect(load({}, {}, { apiKeys: expected }).apiKeys).toEqual(expected);
  });

  it("takes several models, each with a name of its own or without", () => {
    const several = load({ model: ["./a,b", "big=./c=d", "org/e@main", "./x=y"] });
    expect(several).toMatchObject({ model: "./a,b", modelName: [] });
    expect(several.otherModels).toEqual([
      { name: "big", path: "./c=d" },
      { name: undefined, path: "org/e@main" },
      { name: undefined, path: "./x=y" },
    ]);
    const named = load({ model: ["a=./a"], modelName: ["alias"] });
    expect(named).toMatchObject({ model: "./a", modelName: ["a", "alias"], otherModels: [] });
    // A variable has one: its path may have a comma.
    expect(load({}, { DENSEMAMBA_MODEL: "./a,b" })).toMatchObject({ model: "./a,b", otherModels: [] });
    expect(load({}, {}, { model: ["./a", "./b"] }).otherModels).toEqual([{ name: undefined, path: "./b" }]);
    const home = loadConfig({ flags: { model: ["~/a", "b=~/b"] }, env: {}, findHome: () => "/home/me" });
    expect(home).toMatchObject({ model: "/home/me/a", otherModels: [{ name: "b", path: "/home/me/b" }] });
    for (const model of [[], [""], [5], {}, ["./a", null]]) {
      expect(problemsOf(() => load({ model }))[0]).toMatch(/^--model must be a folder/);
    }
  });

  it("takes a time, or never, for how long a model stays loaded", () => {
    expect(load().keepAlive).toBeUndefined();
    expect(load({ keepAlive: "90s" }).keepAlive).toBe(90_000);
    expect(load({ keepAlive: "0" }).keepAlive).toBe(0);
    expect(load({ keepAlive: "never" }).keepAlive).toBe(Number.POSITIVE_INFINITY);
    expect(problemsOf(() => load({ keepAlive: "-1" }))[0]).toMatch(/such as 90s, 10min or 12h, or never, "-1" given/);
  });

  it("takes several names of a model, and a root path without a final slash", () => {
    expect(load().modelName).toEqual([]);
    expect(load({ modelName: ["org/a", "b"] }).modelName).toEqual(["org/a", "b"]);
    expect(load({}, { DENSEMAMBA_MODEL_NAME: "org/a,b" }).modelName).toEqual(["org/a", "b"]);
    expect(load({}, {}, { modelName: "a" }).modelName).toEqual(["a"]);
    expect(load({ rootPath: "/llm/v2" }).rootPath).toBe("/llm/v2");
    expect(load({ rootPath: "" }).rootPath).toBe("");
    for (const rootPath of ["llm", "/", "/llm/", "//llm", "/l?m", "/l m"]) {
      expect(problemsOf(() => load({ rootPath }))[0]).toContain("must be a path such as /llm");
    }
  });

  it("reads switches from flags, text and JSON", () => {
    expect(load({ metricsNeedKey: true }).metricsNeedKey).toBe(true);
    expect(load({}, { DENSEMAMBA_METRICS_NEED_KEY: "1" }).metricsNeedKey).toBe(true);
    expect(load({}, {}, { metricsNeedKey: false }).metricsNeedKey).toBe(false);
    expect(problemsOf(() => load({ metricsNeedKey: "maybe" }))[0]).toContain('"maybe" given');
  });

  it.each(["https://a.example", "http://localhost:3000", "*"])("accepts the origin %s", (origin) => {
    expect(load({ corsOrigins: [origin] }).corsOrigins).toEqual([origin]);
  });

  it.each(["a.example", "https://a.example/", "https://a.example/path", ""])("refuses the origin %j", (origin) => {
    expect(problemsOf(() => load({ corsOrigins: [origin] }))).toHaveLength(1);
  });

  it("accepts an integer exactly within its bounds, as text and as a number", () => {
    fc.assert(
      fc.property(fc.integer(), (port) => {
        const accepted = port >= 0 && port <= 65_535;
        for (const given of [port, String(port)]) {
          if (accepted) expect(load({ port: given }).port).toBe(port);
          else expect(problemsOf(() => load({ port: given }))[0]).toContain(String(port));
        }
      }),
    );
  });

  it("reads a fraction from text for a decimal, and refuses it for an integer", () => {
    expect(loadConfig({ flags: { prefillStall: "1.5" }, env: {} }).prefillStall).toBe(1.5);
    expect(loadConfig({ flags: { prefillStall: 2 }, env: {} }).prefillStall).toBe(2);
    expect(() => loadConfig({ flags: { prefillStall: "1.5x" }, env: {} })).toThrow('"1.5x" given');
    expect(() => loadConfig({ flags: { maxBatch: "1.5" }, env: {} })).toThrow('"1.5" given');
  });
});

describe("the result", () => {
  it("is frozen, lists included", () => {
    const config = load({ apiKeys: ["k"] });
    expect(Object.isFrozen(config)).toBe(true);
    expect(Object.isFrozen(config.apiKeys)).toBe(true);
    expect(Object.isFrozen(load().apiKeys)).toBe(true);
  });

  it("points at the packaged model by default", () => {
    expect(load().model).toBe(path.resolve("models/densemamba-tales-4m"));
  });

  it("gives every option its own flag, variable and description", () => {
    for (const property of ["flag", "variable", "description"] as const) {
      const values = configOptions.map((option) => option[property]);
      expect(new Set(values).size).toBe(values.length);
      expect(values.every((value) => value.length > 5)).toBe(true);
    }
    expect(configOptions.find(({ key }) => key === "maxBatch")).toMatchObject({
      flag: "--max-batch",
      argument: "<n>",
      variable: "DENSEMAMBA_MAX_BATCH",
      shownDefault: "32",
    });
  });
});

describe("the config file", () => {
  const folder = mkdtempSync(path.join(tmpdir(), "densemamba-config-"));
  afterAll(() => rmSync(folder, { recursive: true }));

  it("is read as JSON", () => {
    const fileName = path.join(folder, "good.json");
    writeFileSync(fileName, '{"maxBatch": 7}');
    expect(readConfig({}, fileName).config.maxBatch).toBe(7);
    writeFileSync(fileName, '\ufeff{"maxBatch": 8}');
    expect(readConfig({}, fileName).config.maxBatch).toBe(8);
  });

  it("is named if it is missing or not JSON", () => {
    const broken = path.join(folder, "broken.json");
    writeFileSync(broken, "{maxBatch: 7}");
    for (const fileName of [broken, path.join(folder, "missing.json")]) {
      expect(problemsOf(() => readConfig({}, fileName))[0]).toContain(`config file ${fileName} cannot be read`);
    }
  });
});
