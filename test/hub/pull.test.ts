/**
 * Pulls from a server that speaks the hub's API, into a cache as Hugging Face's own tools keep it.
 */
import {
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { formatModelId, parseModelId } from "../../src/hub/model-id.ts";
import { ensureModel, type PullOptions, type PullProgress, pullModel } from "../../src/hub/pull.ts";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { temporaryFolder } from "../helpers/checkpoints.ts";
import { HubServer, sha256 } from "../helpers/hub-server.ts";
import { ProxyServer } from "../helpers/proxy-server.ts";

const MODEL = "test/fixtures/torch-tiny-densemamba";
const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const OTHER_COMMIT = "89abcdef0123456789abcdef0123456789abcdef";
const config = readFileSync(join(MODEL, "config.json"));
const weights = readFileSync(join(MODEL, "model.safetensors"));
const text = (value: string) => Buffer.from(value);

let server: HubServer;
let cacheDir: string;

beforeEach(async () => {
  server = await HubServer.start();
  cacheDir = temporaryFolder();
});
afterEach(async () => {
  await server.close();
  rmSync(cacheDir, { recursive: true });
});

function options(name: string, changes: Partial<PullOptions["hub"]> & Partial<PullOptions> = {}): PullOptions {
  const { endpoint = server.endpoint, token, offline = false, proxy, ...rest } = changes;
  const hub = { endpoint, token, offline, proxy, cacheDir };
  return { id: parseModelId(name)!, part: "model", hub, sleep: async () => undefined, ...rest };
}

const failed = (...parts: (string | RegExp)[]) =>
  expect.objectContaining({
    code: "pull_failed",
    message: expect.stringMatching(
      new RegExp(parts.map((part) => (typeof part === "string" ? quote(part) : part.source)).join(".*")),
    ),
  });
const quote = (value: string) => value.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");
const folderOf = (repo: string) => join(cacheDir, `models--${repo.replace("/", "--")}`);
const blobs = (repo: string) => readdirSync(join(folderOf(repo), "blobs")).sort();

describe("a pull", () => {
  const files = {
    "README.md": text("# A model"),
    "config.json": config,
    "model.safetensors": weights,
    "pytorch_model.bin": text("the same in another format"),
    "tokenizer.json": text("{}"),
    "training_args.bin": text("x"),
  };

  it("fetches only what a model needs, laid out as Hugging Face's cache, and the model opens", async () => {
    server.add("org/tiny", { commit: COMMIT, files });
    const dir = await pullModel(options("org/tiny"));
    expect(dir).toBe(join(folderOf("org/tiny"), "snapshots", COMMIT));
    expect(readdirSync(dir).sort()).toEqual(["config.json", "model.safetensors", "tokenizer.json"]);
    expect(readlinkSync(join(dir, "model.safetensors"))).toBe(`../../blobs/${sha256(weights)}`);
    expect(readFileSync(join(dir, "model.safetensors")).equals(weights)).toBe(true);
    expect(readFileSync(join(folderOf("org/tiny"), "refs", "main"), "utf8")).toBe(COMMIT);
    const checkpoint = openCheckpoint(dir);
    checkpoint.close();
    expect(checkpoint.name).toBe("org/tiny");
  });

  it("fetches one of a repository's RWKVs, which have no config, by the file's name", async () => {
    const pth = readFileSync("test/fixtures/rwkv7-tiny/model.pth");
    const vocabulary = text("a vocabulary");
    const rwkv = { "README.md": text("# RWKV"), "g1-0.1b.pth": pth, "g1-0.4b.pth": text("another") };
    server.add("org/rwkv7", { commit: COMMIT, files: { ...rwkv, "rwkv_vocab_v20230424.txt": vocabulary } });
    await expect(pullModel(options("org/rwkv7"))).rejects.toMatchObject({
      code: "pull_failed",
      message: "org/rwkv7: org/rwkv7 holds 2 files *.pth: name one, such as org/rwkv7/g1-0.1b.pth",
    });
    const model = await ensureModel(options("org/rwkv7/g1-0.1b.pth"));
    const dir = join(folderOf("org/rwkv7"), "snapshots", COMMIT);
    expect(model).toBe(join(dir, "g1-0.1b.pth"));
    expect(readdirSync(dir).sort()).toEqual(["g1-0.1b.pth", "rwkv_vocab_v20230424.txt"]);
    const checkpoint = openCheckpoint(model);
    checkpoint.close();
    expect([checkpoint.name, checkpoint.family.name]).toEqual(["g1-0.1b", "rwkv7"]);

    const numRequests = server.requests.length;
    expect(await ensureModel(options("org/rwkv7/g1-0.1b.pth"))).toBe(model);
    expect(await ensureModel(options("org/rwkv7", { part: "tokenizer" }))).toBe(dir);
    expect(server.requests.length).toBe(numRequests);
    await expect(pullModel(options("org/rwkv7/g1-2.9b.pth"))).rejects.toThrow(
      "org/rwkv7/g1-2.9b.pth does not have g1-2.9b.pth",
    );
  });

  it("fetches Mistral's params.json and consolidated weights", async () => {
    const mistral = { "params.json": text("{}"), "consolidated.safetensors": weights };
    server.add("org/codestral", { commit: COMMIT, files: mistral });
    expect(readdirSync(await pullModel(options("org/codestral"))).sort()).toEqual(Object.keys(mistral).sort());
  });

  it("notes where a branch points in one go, so that no reader finds half of a name", async () => {
    server.add("org/tiny", { commit: COMMIT, files });
    await pullModel(options("org/tiny"));
    const refs = join(folderOf("org/tiny"), "refs");
    // A second name of the same file sees it if the file itself is written.
    linkSync(join(refs, "main"), join(cacheDir, "before"));
    server.add("org/tiny", { commit: OTHER_COMMIT, files });
    await pullModel(options("org/tiny"));
    expect(readFileSync(join(refs, "main"), "utf8")).toBe(OTHER_COMMIT);
    expect(readFileSync(join(cacheDir, "before"), "utf8")).toBe(COMMIT);
    expect(readdirSync(refs)).toEqual(["main"]);
  });

  it("reports its progress in bytes, up to the total", async () => {
    server.add("org/tiny", { commit: COMMIT, files });
    const seen: PullProgress[] = [];
    await pullModel(options("org/tiny", { onProgress: (progress) => seen.push(progress) }));
    const total = config.length + weights.length + 2;
    expect(seen.at(-1)).toEqual({ done: total, total, message: "pulling org/tiny" });
    expect(seen.every(({ done }, i) => i === 0 || done >= seen[i - 1]!.done)).toBe(true);
    expect(new Set(seen.map((progress) => progress.total))).toEqual(new Set([total]));
  });

  it("prefers safetensors to torch's files, and takes shards from their index", async () => {
    const index = { weight_map: { a: "pytorch_model-1.bin", b: "pytorch_model-2.bin", c: "pytorch_model-1.bin" } };
    server.add("org/shards", {
      commit: COMMIT,
      files: {
        "config.json": config,
        "pytorch_model.bin.index.json": text(JSON.stringify(index)),
        "pytorch_model-1.bin": text("one"),
        "pytorch_model-2.bin": text("two"),
        "pytorch_model-3.bin": text("not in the index"),
      },
    });
    const dir = await pullModel(options("org/shards"));
    expect(readdirSync(dir).sort()).toEqual([
      "config.json",
      "pytorch_model-1.bin",
      "pytorch_model-2.bin",
      "pytorch_model.bin.index.json",
    ]);
  });

  it("takes the requested revision, and the newest commit of a branch", async () => {
    const old = { ...files, "tokenizer.json": text('{"old":1}') };
    server.add("org/tiny", { commit: COMMIT, files });
    server.add("org/tiny@v1.0", { commit: OTHER_COMMIT, files: old });
    const [main, tag, commit] = [
      await pullModel(options("org/tiny")),
      await pullModel(options("org/tiny@v1.0")),
      await pullModel(options(`org/tiny@${COMMIT}`)),
    ];
    expect(readFileSync(join(tag, "tokenizer.json"), "utf8")).toBe('{"old":1}');
    expect(commit).toBe(main);
    // Blobs are shared: only the tokenizer differs.
    expect(server.requests.filter(({ url }) => url.includes("model.safetensors"))).toHaveLength(1);

    server.add("org/tiny", { commit: OTHER_COMMIT, files: old });
    expect(await pullModel(options("org/tiny"))).toBe(tag);
  });

  it("fetches only the tokenizer if that is all that is needed, and does not take it for the whole model", async () => {
    server.add("org/tiny", { commit: COMMIT, files });
    server.add("org/weights", { commit: COMMIT, files: { "config.json": config, "model.safetensors": weights } });
    const dir = await ensureModel(options("org/tiny", { part: "tokenizer" }));
    expect(readdirSync(dir)).toEqual(["tokenizer.json"]);
    expect(await ensureModel(options("org/tiny", { part: "tokenizer", offline: true }))).toBe(dir);
    await expect(ensureModel(options("org/tiny", { offline: true }))).rejects.toThrow(failed("HF_HUB_OFFLINE is set"));
    await ensureModel(options("org/tiny"));
    expect(readdirSync(dir)).toHaveLength(3);
    await expect(ensureModel(options("org/weights", { part: "tokenizer" }))).rejects.toThrow(
      failed("org/weights does not have tokenizer.json"),
    );
  });

  it("uses no network for a model in the cache, unless it is told to pull", async () => {
    server.add("org/tiny", { commit: COMMIT, files });
    const dir = await ensureModel(options("org/tiny"));
    const numAsked = server.questions.length;
    expect(await ensureModel(options("org/tiny"))).toBe(dir);
    expect(await ensureModel(options(`org/tiny@${COMMIT}`))).toBe(dir);
    expect(await ensureModel(options("org/tiny", { offline: true }))).toBe(dir);
    expect(server.questions).toHaveLength(numAsked);
    await pullModel(options("org/tiny"));
    expect(server.questions.length).toBeGreaterThan(numAsked);
    // A model that lacks something is not there.
    rmSync(join(folderOf("org/tiny"), "blobs", sha256(weights)));
    expect(await ensureModel(options("org/tiny"))).toBe(dir);
    expect(openCheckpoint(dir).close()).toBeUndefined();
  });

  it("gives the token to the hub, never to where the hub redirects", async () => {
    server.add("org/private", { commit: COMMIT, files, token: "a-mirror's-token" });
    await pullModel(options("org/private", { token: "a-mirror's-token" }));
    const seen = new Set(server.requests.map(({ origin, authorization }) => `${origin}: ${authorization}`));
    expect(seen).toEqual(new Set(["hub: Bearer a-mirror's-token", "store: undefined"]));
  });
});

describe("a pull that is cut off", () => {
  const files = { "config.json": config, "model.safetensors": weights };
  const incomplete = () => join(folderOf("org/tiny"), "blobs", `${sha256(weights)}.incomplete`);
  beforeEach(() => server.add("org/tiny", { commit: COMMIT, files }));

  it("resumes by itself at the byte where it stopped", async () => {
    server.faults.push("none", { cutAfter: 5000 }, { cutAfter: 7000 });
    const dir = await pullModel(options("org/tiny"));
    expect(readFileSync(join(dir, "model.safetensors")).equals(weights)).toBe(true);
    const ranges = server.requests.filter(({ origin }) => origin === "store").map(({ range }) => range);
    expect(ranges).toEqual([undefined, `bytes=5000-${weights.length - 1}`, `bytes=12000-${weights.length - 1}`]);
  });

  it("waits for storage that answers with errors", async () => {
    server.faults.push("none", { status: 503 }, { status: 503 });
    const pauses: number[] = [];
    await pullModel(options("org/tiny", { sleep: async (ms) => void pauses.push(ms) }));
    expect(pauses).toEqual([1000, 2000]);
  });

  it("fails after several attempts without a byte, and the next pull resumes there", async () => {
    const pauses: number[] = [];
    server.faults.push("none", { cutAfter: 9000 });
    server.faults.push(...Array.from({ length: 5 }, () => ({ cutAfter: 0 })));
    const sleep = async (ms: number) => void pauses.push(ms);
    await expect(pullModel(options("org/tiny", { sleep }))).rejects.toThrow(
      failed(`model.safetensors: cut off at byte 9000 of ${weights.length}`, "the next pull resumes there"),
    );
    expect(statSync(incomplete()).size).toBe(9000);
    expect(pauses.slice(-4)).toEqual([1000, 2000, 4000, 8000]);
    expect(existsSync(join(folderOf("org/tiny"), "refs"))).toBe(false);

    server.requests.length = 0;
    const first: PullProgress[] = [];
    const dir = await ensureModel(options("org/tiny", { onProgress: (progress) => first.push(progress) }));
    expect(server.requests.map(({ range }) => range)).toEqual([`bytes=9000-${weights.length - 1}`]);
    expect(first.map(({ done }) => done)).toContain(config.length + 9000);
    expect(readFileSync(join(dir, "model.safetensors")).equals(weights)).toBe(true);
    expect(blobs("org/tiny")).toHaveLength(2);
  });

  it("and resumes after wrong bytes is refused, and then starts again", async () => {
    server.faults.push("none");
    await pullModel(options("org/tiny"));
    rmSync(join(folderOf("org/tiny"), "blobs", sha256(weights)));
    writeFileSync(incomplete(), Buffer.alloc(100));
    await expect(pullModel(options("org/tiny"))).rejects.toThrow(failed("its sha256 is", sha256(weights)));
    expect(existsSync(incomplete())).toBe(false);
    await pullModel(options("org/tiny"));
    // One that is longer than the file can only be another's.
    rmSync(join(folderOf("org/tiny"), "blobs", sha256(weights)));
    writeFileSync(incomplete(), Buffer.alloc(weights.length + 1));
    await pullModel(options("org/tiny"));
  });

  it("works while another process pulls the same model", async () => {
    server.faults.push({ cutAfter: 10 }, { cutAfter: 10 }, { cutAfter: 20_000 }, { cutAfter: 3000 });
    const [one, other] = await Promise.all([pullModel(options("org/tiny")), pullModel(options("org/tiny"))]);
    expect(one).toBe(other);
    expect(readFileSync(join(one, "model.safetensors")).equals(weights)).toBe(true);
    expect(blobs("org/tiny")).toHaveLength(2);
  });
});

describe("bytes that are not the hub's", () => {
  const files = { "config.json": config, "model.safetensors": weights };
  beforeEach(() => server.add("org/tiny", { commit: COMMIT, files }));

  it("are refused by sha256 and removed", async () => {
    server.faults.push("none", "wrong bytes");
    await expect(pullModel(options("org/tiny"))).rejects.toThrow(
      failed("model.safetensors: its sha256 is ", `the hub says ${sha256(weights)}`, "it was removed"),
    );
    expect(blobs("org/tiny")).toHaveLength(1);
    expect(await pullModel(options("org/tiny"))).toContain(COMMIT);
  });

  it("are refused by git's hash for small files", async () => {
    server.faults.push("wrong bytes");
    await expect(pullModel(options("org/tiny"))).rejects.toThrow(failed("config.json: its git hash is "));
    expect(blobs("org/tiny")).toEqual([]);
  });

  it("are refused if there are too many or too few", async () => {
    server.faults.push("too long");
    await expect(pullModel(options("org/tiny"))).rejects.toThrow(
      failed(`config.json: it has ${config.length + 1} bytes, the hub says ${config.length}`),
    );
    expect(blobs("org/tiny")).toEqual([]);
  });
});

describe("a failed pull is reported in one line", () => {
  const files = { "config.json": config, "model.safetensors": weights };
  const message = async (pulling: Promise<string>) => {
    const error = await pulling.then(
      () => undefined,
      (reason) => reason,
    );
    expect(error).toMatchObject({ code: "pull_failed" });
    expect(error.message).not.toContain("\n");
    return error.message as string;
  };

  it("without a network: what was requested, and what the cache has", async () => {
    server.add("org/tiny", { commit: COMMIT, files });
    server.add("other/one", { commit: COMMIT, files });
    await pullModel(options("org/tiny"));
    await pullModel(options("other/one"));
    const gone = await HubServer.start();
    const { endpoint } = gone;
    await gone.close();
    const nothing = { endpoint };
    expect(await message(ensureModel(options("org/absent", nothing)))).toBe(
      `cannot pull org/absent: cannot reach ${endpoint} (ECONNREFUSED); the cache ${cacheDir} has no org/absent, but org/tiny, other/one`,
    );
    expect(await message(ensureModel(options("org/tiny@v2", nothing)))).toContain(
      "has other revisions of org/tiny, but other/one",
    );
    expect(await message(ensureModel(options("org/absent", { ...nothing, offline: true })))).toContain(
      "cannot pull org/absent: HF_HUB_OFFLINE is set; ",
    );
    rmSync(cacheDir, { recursive: true });
    expect(await message(pullModel(options("org/absent", nothing)))).toMatch(/has no org\/absent and nothing else$/);
    mkdirSync(cacheDir);
  });

  it("for a model that does not exist, or is private or gated", async () => {
    server.add("org/tiny", { commit: COMMIT, files });
    server.add("org/gated", { commit: COMMIT, files, gated: true });
    const token = "hf_x";
    expect(await message(pullModel(options("org/absent")))).toBe(
      `${server.endpoint} does not show org/absent (401: Invalid username or password.); if it is private or gated, set HF_TOKEN`,
    );
    expect(await message(pullModel(options("org/absent", { token })))).toBe(
      `${server.endpoint} has no org/absent (Repository not found)`,
    );
    expect(await message(pullModel(options("org/tiny@v9")))).toBe(
      `${server.endpoint} has no org/tiny@v9 (Invalid rev id: v9)`,
    );
    const gated = await message(pullModel(options("org/gated", { token })));
    expect(gated).toContain("(403: Access to model org/gated is restricted.); HF_TOKEN may not read it");
    expect(gated).toContain(`terms at ${server.endpoint}/org/gated`);
    expect(gated).not.toContain(token);
  });

  it("for a repository without a model that can be served", async () => {
    server.add("org/empty", { commit: COMMIT, files: { "config.json": config, "tf_model.h5": weights } });
    server.add("org/data", { commit: COMMIT, files: { "model.safetensors": weights } });
    server.add("org/broken", {
      commit: COMMIT,
      files: { "config.json": config, "model.safetensors.index.json": text("{") },
    });
    const index = text('{"weight_map":{"a":"lost.safetensors"}}');
    server.add("org/lost", { commit: COMMIT, files: { "config.json": config, "model.safetensors.index.json": index } });
    expect(await message(pullModel(options("org/empty")))).toContain(
      "org/empty does not have any of model.safetensors,",
    );
    expect(await message(pullModel(options("org/data")))).toBe("org/data does not have config.json");
    expect(await message(pullModel(options("org/broken")))).toMatch(/^org\/broken: .*index\.json is not JSON/);
    expect(await message(pullModel(options("org/lost")))).toBe(
      "org/lost does not have lost.safetensors, which its index names",
    );
  });

  it("for a hub that answers nonsense", async () => {
    server.add("org/evil", { commit: "../../../tmp", files });
    expect(await message(pullModel(options("org/evil")))).toContain('an invalid commit "../../../tmp"');
  });
});

describe("a name", () => {
  it.each([
    ["state-spaces/mamba-130m-hf", "state-spaces/mamba-130m-hf", "main"],
    ["org/name@v1.0", "org/name", "v1.0"],
    ["org/name@refs/pr/3", "org/name", "refs/pr/3"],
    ["a/b", "a/b", "main"],
    ["a/b/c.pth", "a/b", "main", "c.pth"],
    ["a/b/rwkv7-g1-0.4b.pth@v1", "a/b", "v1", "rwkv7-g1-0.4b.pth"],
  ])("%s is one", (text, repo, revision, file?: string) => {
    expect(parseModelId(text)).toEqual({ repo, revision, file });
    expect(formatModelId(parseModelId(text)!)).toBe(text);
  });

  it.each([
    "/a/b",
    "./a/b",
    "../a",
    "a",
    "a/b/c",
    "a/b/..pth",
    "a/b/c..pth",
    "a/b/c/d.pth",
    "a/..",
    "a/b@",
    "a/b@../x",
    "a--b/c",
    "a/b@-x",
    "C:\\a/b",
    "a/b ",
    "",
  ])("%s is none", (text) => {
    expect(parseModelId(text)).toBeUndefined();
  });
});

describe("behind a proxy", () => {
  const files = { "config.json": config, "model.safetensors": weights };
  let proxy: ProxyServer;
  beforeEach(async () => {
    proxy = await ProxyServer.start();
    server.add("org/tiny", { commit: COMMIT, files, token: "hf_secret" });
  });
  afterEach(() => proxy.close());

  it("everything goes through it, also the redirected bytes, and the token reaches the hub alone", async () => {
    const settings = { httpProxy: proxy.url, httpsProxy: "", noProxy: "" };
    const dir = await pullModel(options("org/tiny", { proxy: settings, token: "hf_secret" }));
    expect(readFileSync(join(dir, "model.safetensors")).equals(weights)).toBe(true);
    expect(new Set(proxy.targets).size).toBe(2);
    expect(server.requests.filter(({ origin }) => origin === "store").map((seen) => seen.authorization)).toEqual([
      undefined,
    ]);
  });

  it("hosts that need none are reached without it; one that is not there is reported", async () => {
    const direct = { httpProxy: "http://127.0.0.1:1", httpsProxy: "", noProxy: "127.0.0.1" };
    await pullModel(options("org/tiny", { proxy: direct, token: "hf_secret" }));
    const gone = { httpProxy: "http://127.0.0.1:1", httpsProxy: "", noProxy: "" };
    const pull = pullModel(options("org/tiny", { proxy: gone, token: "hf_secret" }));
    await expect(pull).rejects.toEqual(failed("cannot reach", "ECONNREFUSED"));
  });
});
