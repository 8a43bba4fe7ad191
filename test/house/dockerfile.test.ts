import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { configOptions } from "../../src/config/schema.ts";
import { type BuiltStage, buildStages, folderBytes, parseDockerfile } from "./dockerfile.ts";
import { ImageServer } from "./image-server.ts";

const FILES = ["Dockerfile", "docker/Dockerfile.cuda"];
/**
 * A test has neither of the CPU image's own: the packages of which its base consists, unpacked; its
 * version of Node, stripped.
 */
const BASE_MEGABYTES = 30;
const NODE_MEGABYTES = 107;
const stagesOf = (file: string) => parseDockerfile(readFileSync(file, "utf8"));

describe.each(FILES)("%s", (file) => {
  const stages = stagesOf(file);
  const last = stages.at(-1)!.instructions;
  const find = (keyword: string) => last.findLast((instruction) => instruction.keyword === keyword)?.text;

  it("pins its bases to full versions, or to digests", () => {
    for (const { image } of stages) expect(image).toMatch(/^[\w./-]+:(\d+\.\d+\.\d+-[\w.-]+|\w+@sha256:[0-9a-f]{64})$/);
  });

  it("is labelled with what package.json says", () => {
    const { name, version, license } = JSON.parse(readFileSync("package.json", "utf8"));
    const labels = [...find("LABEL")!.matchAll(/image\.(\w+)="([^"]*)"/g)].map(([, key, value]) => [key, value]);
    expect(Object.fromEntries(labels)).toMatchObject({ title: name, version, licenses: license });
  });

  it("runs as a user that is not root, known by number", () => {
    const [, user] = /^(\d+):\d+$/.exec(find("USER") ?? "") ?? [];
    expect(Number(user)).toBeGreaterThan(0);
  });

  it("says how to ask for its health and how to stop it", () => {
    expect(find("HEALTHCHECK")).toContain("/health");
    expect(find("STOPSIGNAL")).toBe("SIGTERM");
    expect(find("EXPOSE")).toBe(/DENSEMAMBA_PORT=(\d+)/.exec(find("ENV") ?? "")?.[1]);
  });

  it("starts the program itself, not a shell that would keep signals from it", () => {
    expect(JSON.parse(find("ENTRYPOINT")!)).toEqual(["node", "/app/dist/cli/main.js", "serve"]);
    expect(JSON.parse(find("HEALTHCHECK")!.replace(/^.*CMD /, ""))[0]).toBe("node");
  });

  it("copies only what is there and what .dockerignore lets through", () => {
    const ignore = readFileSync(".dockerignore", "utf8").split("\n");
    const admitted = ignore.filter((line) => line.startsWith("!")).map((line) => line.slice(1));
    expect(ignore).toContain("*");
    for (const { keyword, text, flags } of stages.flatMap(({ instructions }) => instructions)) {
      if (keyword !== "COPY" || flags.from !== undefined) continue;
      for (const source of text.split(/\s+/).slice(0, -1)) {
        expect(existsSync(source), source).toBe(true);
        expect(admitted).toContain(source);
      }
    }
  });

  it("is what hadolint calls well kept", ({ skip }) => {
    const linted = spawnSync("hadolint", [file], { encoding: "utf8", timeout: 100_000 });
    if (linted.error !== undefined) skip("hadolint is not installed; .ci/run installs it");
    expect(linted.stdout).toBe("");
    expect(linted.status).toBe(0);
  });
});

describe("compose.yaml", () => {
  const compose = parse(readFileSync("docker/compose.yaml", "utf8"));

  it("builds the CPU image and mounts files that are there", () => {
    const { build } = compose.services.densemamba;
    expect(path.join("docker", build.context, build.dockerfile)).toBe("Dockerfile");
    for (const service of Object.values<{ volumes: string[] }>(compose.services)) {
      for (const volume of service.volumes) {
        const source = volume.split(":")[0]!;
        if (source.startsWith(".")) expect(existsSync(path.join("docker", source)), source).toBe(true);
        else expect(Object.keys(compose.volumes)).toContain(source);
      }
    }
  });

  it("lets Prometheus scrape the port that the image exposes", () => {
    const { scrape_configs: jobs } = parse(readFileSync("docker/prometheus.yml", "utf8"));
    const port = stagesOf("Dockerfile")
      .at(-1)!
      .instructions.find(({ keyword }) => keyword === "EXPOSE")!.text;
    expect(jobs[0].static_configs[0].targets).toEqual([`densemamba:${port}`]);
    expect(jobs[0].metrics_path).toBe("/metrics");
    expect(compose.services.prometheus.depends_on).toHaveProperty("densemamba");
  });

  it("gives the server longer to stop than the server gives its streams", () => {
    expect(Number.parseInt(compose.services.densemamba.stop_grace_period, 10) * 1000).toBeGreaterThan(8000);
  });
});

describe("compose.replicas.yaml", () => {
  const compose = parse(readFileSync("docker/compose.replicas.yaml", "utf8"), { merge: true });
  const servers = Object.keys(compose.services).filter((name) => compose.services[name].image === "densemamba");

  it("runs the image several times, over one Valkey server", () => {
    expect(servers).toHaveLength(2);
    const [first, other] = servers.map((name) => compose.services[name]);
    expect(other).toEqual(first);
    const { build, environment, volumes } = first;
    expect(path.join("docker", build.context, build.dockerfile)).toBe("Dockerfile");
    // A folder is one server's.
    expect([environment.DENSEMAMBA_STORE_DIR, volumes]).toEqual([undefined, undefined]);
    const valkey = new URL(environment.DENSEMAMBA_VALKEY_URL).hostname;
    expect(compose.services[valkey].image).toMatch(/^valkey\/valkey:\d+\.\d+\.\d+/);
    expect(compose.services[valkey].command).toEqual(expect.arrayContaining(["--appendonly", "--maxmemory"]));
  });

  it("has only options that there are", () => {
    const single = parse(readFileSync("docker/compose.yaml", "utf8"));
    for (const { environment } of [single.services.densemamba, compose.services[servers[0]!]]) {
      const known = configOptions.map(({ variable }) => variable);
      expect(Object.keys(environment).filter((variable) => !known.includes(variable))).toEqual([]);
    }
  });

  it("leads proxy and Prometheus to all of them", () => {
    const port = stagesOf("Dockerfile")
      .at(-1)!
      .instructions.find(({ keyword }) => keyword === "EXPOSE")!.text;
    const addresses = servers.map((name) => `${name}:${port}`);
    expect(readFileSync("docker/Caddyfile", "utf8")).toContain(`to ${addresses.join(" ")}\n`);
    const { scrape_configs: jobs } = parse(readFileSync("docker/prometheus.replicas.yml", "utf8"));
    expect(jobs[0].static_configs).toEqual([{ targets: addresses }]);
    for (const { volumes = [] } of Object.values<{ volumes?: string[] }>(compose.services)) {
      for (const volume of volumes) {
        const source = volume.split(":")[0]!;
        if (source.startsWith(".")) expect(existsSync(path.join("docker", source)), source).toBe(true);
        else expect(Object.keys(compose.volumes)).toContain(source);
      }
    }
  });
});

// Installs all dependencies anew: a minute.
describe.runIf(process.env.CI)("the Dockerfile's own steps in a clean folder", () => {
  const stages = stagesOf("Dockerfile");
  let folder: string;
  let image: BuiltStage;
  let server: ImageServer | undefined;

  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "densemamba-image-"));
    image = await buildStages(stages, { context: ".", folder });
  }, 1_200_000);
  afterAll(async () => {
    server?.kill();
    await rm(folder, { recursive: true, force: true });
  });

  it("leave nothing that no server loads, and a tree of at most 250 MB with its base", async () => {
    const modules = path.join(image.root, "app/node_modules");
    for (const name of ["typescript", "vitest", "@biomejs/biome"])
      expect(existsSync(path.join(modules, name))).toBe(false);
    expect(await readdir(path.join(modules, "onnxruntime-node/bin/napi-v6"))).toEqual([process.platform]);
    const names = await readdir(path.join(image.root), { recursive: true });
    expect(names.filter((name) => /\.(map|[cm]?ts)$|swagger-ui-es-bundle|\/npm$/.test(name))).toEqual([]);
    const [app, states] = await Promise.all(["app", "var"].map((top) => folderBytes(path.join(image.root, top))));
    const megabytes = BASE_MEGABYTES + NODE_MEGABYTES + (app! + states!) / 1e6;
    console.log(`CPU image: ${megabytes.toFixed(0)} MB`);
    expect(megabytes).toBeLessThan(250);
    expect(readFileSync("docs/containers.md", "utf8")).toContain(
      `default model: ${Math.round(megabytes / 10) * 10} MB`,
    );
  });

  it("give a server that starts from its own files, is healthy, and stops on SIGTERM", async () => {
    server = new ImageServer(stages.at(-1)!, image);
    const url = await server.ready();
    // Compiled when the image was built.
    expect(server.output).not.toContain("compiling");

    await server.checkHealth(url);
    const answer = await fetch(`${url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "Once upon a time", max_tokens: 8 }),
    });
    expect(answer.status).toBe(200);
    expect((await fetch(`${url}/openapi.yaml`)).status).toBe(200);
    const page = await fetch(url, { headers: { accept: "text/html" } });
    expect(page.headers.get("content-type")).toContain("text/html");
    for (const asset of ["swagger-ui-bundle.js", "swagger-ui.css"]) {
      expect((await fetch(`${url}/docs/${asset}`)).status).toBe(200);
    }

    expect(await server.stop()).toMatchObject({ code: 0 });
    await expect(server.checkHealth(url)).rejects.toThrow();
  });
});
