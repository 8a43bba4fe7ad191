import { describe, expect, it } from "vitest";
import { parseHubSettings } from "../../src/config/hub.ts";

const parse = (env: Record<string, string>, files: Record<string, string> = {}) =>
  parseHubSettings({ env, findHome: () => "/home/me", readText: (file) => files[file] });

describe("the hub's settings", () => {
  it("are Hugging Face's defaults if nothing is set", () => {
    expect(parse({})).toEqual({
      endpoint: "https://huggingface.co",
      token: undefined,
      cacheDir: "/home/me/.cache/huggingface/hub",
      offline: false,
      proxy: undefined,
    });
  });

  it("take the proxy that curl would take, and refuse what is none without repeating it", () => {
    expect(parse({ HTTPS_PROXY: "http://a:1", https_proxy: "http://b:2", NO_PROXY: "c" }).proxy).toEqual({
      httpProxy: "",
      httpsProxy: "http://b:2",
      noProxy: "c",
    });
    expect(parse({ HTTP_PROXY: "http://a:1" }).proxy).toMatchObject({ httpProxy: "http://a:1", httpsProxy: "" });
    expect(parse({ HTTPS_PROXY: "" }).proxy).toBeUndefined();
    for (const url of ["socks5://u:secret@h", "secret"]) {
      const take = () => parse({ HTTPS_PROXY: url });
      expect(take).toThrow("HTTPS_PROXY must be a URL such as http://proxy:3128");
      expect(take).not.toThrow("secret");
    }
  });

  it("find the cache as Hugging Face's tools do, the most specific variable first", () => {
    const env = { XDG_CACHE_HOME: "/xdg", HF_HOME: "/hf", HUGGINGFACE_HUB_CACHE: "/old", HF_HUB_CACHE: "/cache" };
    const order = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"] as const;
    const left: Partial<typeof env> = { ...env };
    const found = order.map((name) => {
      const { cacheDir } = parse(left as Record<string, string>);
      delete left[name];
      return cacheDir;
    });
    expect(found).toEqual(["/cache", "/old", "/hf/hub", "/xdg/huggingface/hub"]);
  });

  it("take the token from the environment, else from the file of a login", () => {
    const files = { "/home/me/.cache/huggingface/token": "hf_login\n", "/elsewhere": "hf_elsewhere" };
    expect(parse({ HF_TOKEN: " hf_a\n", HUGGING_FACE_HUB_TOKEN: "hf_b" }, files).token).toBe("hf_a");
    expect(parse({ HUGGING_FACE_HUB_TOKEN: "hf_b" }, files).token).toBe("hf_b");
    expect(parse({ HF_TOKEN_PATH: "/elsewhere" }, files).token).toBe("hf_elsewhere");
    expect(parse({}, files).token).toBe("hf_login");
    expect(parse({ HF_TOKEN: "" }).token).toBeUndefined();
  });

  it("expand users and variables in paths, as Hugging Face's tools do", () => {
    const cacheOf = (env: Record<string, string>) => parse({ HOME: "/home/me", ...env }).cacheDir;
    expect(cacheOf({ HF_HOME: "~/hfx" })).toBe("/home/me/hfx/hub");
    expect(cacheOf({ HF_HOME: "~" })).toBe("/home/me/hub");
    expect(cacheOf({ HF_HOME: "$HOME/hfx" })).toBe("/home/me/hfx/hub");
    expect(cacheOf({ HF_HOME: `\${HOME}/hfx/$NONE` })).toBe("/home/me/hfx/$NONE/hub");
    expect(cacheOf({ HF_HUB_CACHE: "~/hfx/hub" })).toBe("/home/me/hfx/hub");
    expect(cacheOf({ HUGGINGFACE_HUB_CACHE: "~/old" })).toBe("/home/me/old");
    expect(cacheOf({ XDG_CACHE_HOME: "~/xc" })).toBe("/home/me/xc/huggingface/hub");
    expect(parse({ HF_TOKEN_PATH: "~/t" }, { "/home/me/t": "hf_t" }).token).toBe("hf_t");
    expect(() => cacheOf({ HF_HOME: "~ann/hfx" })).toThrow(
      /HF_HOME must not name another user's home, "~ann\/hfx" given/,
    );
  });

  it("need a home folder only for paths in it", () => {
    const homeless = (env: Record<string, string>) =>
      parseHubSettings({ env, findHome: () => undefined, readText: () => undefined });
    expect(homeless({ HF_HOME: "/hf" }).cacheDir).toBe("/hf/hub");
    expect(homeless({ HF_HUB_CACHE: "cache" })).toMatchObject({ cacheDir: "cache", token: undefined });
    for (const env of [{}, { HF_HOME: "~/hf" }] as Record<string, string>[]) {
      expect(() => homeless(env)).toThrow(
        /HF_HOME is .*, and this user has no home folder: set HOME, or give the path/,
      );
    }
  });

  it("accept a mirror, and refuse what is not a URL", () => {
    expect(parse({ HF_ENDPOINT: "https://mirror.example/hf/" }).endpoint).toBe("https://mirror.example/hf");
    for (const wrong of ["mirror.example", "ftp://x", "file:///x"]) {
      expect(() => parse({ HF_ENDPOINT: wrong, HF_TOKEN: "hf_secret" })).toThrow(
        expect.objectContaining({ code: "invalid_config", message: expect.not.stringContaining("hf_secret") }),
      );
    }
  });

  it.each([
    ["1", true],
    ["true", true],
    ["ON", true],
    ["0", false],
    ["", false],
    ["no", false],
  ])("are offline for %s: %s", (value, offline) => {
    expect(parse({ HF_HUB_OFFLINE: value }).offline).toBe(offline);
    expect(parse({ TRANSFORMERS_OFFLINE: value }).offline).toBe(offline);
  });
});
