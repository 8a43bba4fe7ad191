import { describe, expect, it } from "vitest";
import { parseHubSettings } from "../../src/config/hub.ts";

const parse = (env: Record<string, string>, files: Record<string, string> = {}) =>
  parseHubSettings({ env, home: "/home/me", readText: (file) => files[file] });

describe("the hub's settings", () => {
  it("are Hugging Face's own where nothing is set", () => {
    expect(parse({})).toEqual({
      endpoint: "https://huggingface.co",
      token: undefined,
      cacheDir: "/home/me/.cache/huggingface/hub",
      offline: false,
    });
  });

  it("find the cache as Hugging Face's tools do, the nearest variable first", () => {
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

  it("take the token from the environment, else from where a login left it", () => {
    const files = { "/home/me/.cache/huggingface/token": "hf_login\n", "/elsewhere": "hf_elsewhere" };
    expect(parse({ HF_TOKEN: " hf_a\n", HUGGING_FACE_HUB_TOKEN: "hf_b" }, files).token).toBe("hf_a");
    expect(parse({ HUGGING_FACE_HUB_TOKEN: "hf_b" }, files).token).toBe("hf_b");
    expect(parse({ HF_TOKEN_PATH: "/elsewhere" }, files).token).toBe("hf_elsewhere");
    expect(parse({}, files).token).toBe("hf_login");
    expect(parse({ HF_TOKEN: "" }).token).toBeUndefined();
  });

  it("take a mirror, and refuse what is no address", () => {
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
  ])("are offline for %s: %s", (HF_HUB_OFFLINE, offline) => {
    expect(parse({ HF_HUB_OFFLINE }).offline).toBe(offline);
  });
});
