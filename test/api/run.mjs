/**
 * `npm run test:api`: schemathesis against a real server: what openapi.yaml allows is taken, what
 * it forbids is refused, every answer fits it, and nothing is a 5xx. Needs Python 3.10 or later,
 * and says so loudly where there is none.
 *
 *   npm run test:api [-- --seed 7 --max-examples 40]
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { parse } from "yaml";

const SCHEMATHESIS = "4.32.5";
/** Of each operation and phase: some 20,000 cases in all. */
const MAX_EXAMPLES = "1100";
const MIN_CASES = 20_000;

const root = path.join(import.meta.dirname, "../..");
const cache = path.join(root, ".cache/test-api");
const venv = path.join(cache, `schemathesis-${SCHEMATHESIS}`);
const { values } = parseArgs({
  options: {
    seed: { type: "string", default: "1" },
    "max-examples": { type: "string", default: MAX_EXAMPLES },
    phases: { type: "string", default: "examples,coverage,fuzzing,stateful" },
    /** A regular expression, for some of the operations. */
    paths: { type: "string" },
  },
});

const python = ["python3", "python"].find((name) => spawnSync(name, ["-c", "import venv, ensurepip"]).status === 0);
if (python === undefined) {
  console.error("SKIPPED: test:api needs Python with venv, and there is none. Nothing was tested.");
  process.exit(process.env.CI ? 1 : 0);
}
mkdirSync(cache, { recursive: true });
const schemathesis = path.join(venv, "bin/schemathesis");
if (!existsSync(schemathesis)) {
  rmSync(venv, { recursive: true, force: true });
  must(python, ["-m", "venv", venv]);
  must(path.join(venv, "bin/pip"), ["install", "--quiet", `schemathesis==${SCHEMATHESIS}`]);
}

// Two things are tested elsewhere: the fields that are refused, whose number makes generating slow,
// and the events of streams, which OpenAPI 3.1 has no words for.
const document = parse(readFileSync(path.join(root, "openapi.yaml"), "utf8"));
for (const name of ["RefusedFields", "RefusedEverywhere"]) document.components.schemas[name] = { type: "object" };
for (const operations of Object.values(document.paths)) {
  for (const { responses = {} } of Object.values(operations)) {
    const stream = responses["200"]?.content?.["text/event-stream"];
    if (stream !== undefined) delete stream.schema;
  }
}
// NOTE: JavaScript would round the bounds of 64 bits up, to what is out of bounds.
Object.assign(document.components.schemas.SamplingFields.properties.seed, { minimum: -(2 ** 53), maximum: 2 ** 53 });
const schema = path.join(cache, "openapi.json");
writeFileSync(schema, JSON.stringify(document));

const server = spawn(
  process.execPath,
  [
    ...["--import", "tsx", "src/cli/main.ts", "serve", "--port", "0", "--device", "cpu", "--log-level", "warn"],
    // As `hooks.py` has them.
    ...["--max-output-tokens", "32", "--max-prompt-tokens", "2048", "--max-batch", "16"],
    ...["--resume-ms", "100", "--session-ttl-ms", "60000", "--response-ttl-ms", "60000"],
  ],
  { cwd: root, stdio: ["ignore", "pipe", "inherit"] },
);
const url = await new Promise((resolve, reject) => {
  let said = "";
  server.stdout.setEncoding("utf8").on("data", (text) => {
    said += text;
    const found = /ready +(http:\S+) after/.exec(said);
    if (found !== null) resolve(found[1]);
  });
  server.once("exit", (code) => reject(new Error(`the server ended with ${code} before it was ready`)));
});

let output = "";
const run = spawn(
  schemathesis,
  [
    ...["--config-file", path.join(import.meta.dirname, "schemathesis.toml")],
    ...["run", schema, "--url", url, "--seed", values.seed, "--phases", values.phases],
    ...["--max-examples", values["max-examples"], "--mode", "all", "--generation-allow-x00", "true"],
    // `hooks.py` has a stricter one in its place, and knows what the schema cannot say.
    ...["--checks", "all", "--exclude-checks", "positive_data_acceptance"],
    ...(values.paths === undefined ? [] : ["--include-path-regex", values.paths]),
    ...["--generation-database", "none", "--continue-on-failure", "--request-timeout", "60", "--no-color"],
  ],
  {
    cwd: root,
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, PYTHONPATH: import.meta.dirname, PYTHONDONTWRITEBYTECODE: "1", SCHEMATHESIS_HOOKS: "hooks" },
  },
);
run.stdout.setEncoding("utf8").on("data", (text) => {
  output += text;
  process.stdout.write(text);
});
const status = await new Promise((resolve) => run.once("exit", resolve));
const isAlive = server.exitCode === null;
server.kill("SIGTERM");

const numCases = Number(/(\d+) generated/.exec(output)?.[1] ?? 0);
console.log(`seed ${values.seed}: ${numCases} cases, schemathesis ended with ${status}`);
const isWhole =
  values["max-examples"] === MAX_EXAMPLES && values.phases.includes("fuzzing") && values.paths === undefined;
if (isWhole && numCases < MIN_CASES) console.error(`fewer than ${MIN_CASES} cases: raise MAX_EXAMPLES`);
if (!isAlive) console.error("the server did not live to the end");
process.exit(status === 0 && isAlive && !(isWhole && numCases < MIN_CASES) ? 0 : 1);

function must(command, args) {
  const { status, error } = spawnSync(command, args, { stdio: "inherit" });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${status ?? error}`);
}
