/**
 * A checkpoint's weights: in one file or in shards, whatever the format, held against index and
 * config.
 */
import { cpSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { asBytes } from "../../src/compiler/matrix.ts";
import { openCheckpoint, sourceFiles } from "../../src/model/checkpoint.ts";
import { openWeights } from "../../src/model/open-weights.ts";
import { parseJsonObject } from "../../src/model/strict-json.ts";
import { readAll } from "../../src/model/weights.ts";
import {
  editConfig,
  type RawTensor,
  readRawTensors,
  temporaryFolder,
  writeRawTensors,
} from "../helpers/checkpoints.ts";
import { stateDictPickle, writeTorchFile } from "../helpers/torch-files.ts";

const SOURCE = "test/fixtures/torch-tiny-densemamba";
const INDEX = "model.safetensors.index.json";
const SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] as const;

let dir: string;
let tensors: Map<string, RawTensor>;

beforeEach(() => {
  dir = temporaryFolder();
  cpSync(SOURCE, dir, { recursive: true });
  tensors = readRawTensors(SOURCE);
});
afterEach(() => rmSync(dir, { recursive: true }));

const refused = (message: string) =>
  expect.objectContaining({ code: "invalid_checkpoint", message: expect.stringContaining(message) });

function valuesOf(modelDir: string): Map<string, Float32Array> {
  const weights = openWeights(modelDir);
  const values = weights.tensors.map((tensor) => [tensor.name, readAll(tensor)] as const);
  weights.close();
  return new Map(values.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Splits the one file in two, with an index; returns the index's map, which the test may spoil. */
function writeShards(): Record<string, string> {
  const map: Record<string, string> = {};
  const all = [...tensors];
  for (const [i, part] of [all.slice(0, 10), all.slice(10)].entries()) {
    writeRawTensors(dir, new Map(part));
    renameSync(join(dir, "model.safetensors"), join(dir, SHARDS[i]!));
    for (const [name] of part) map[name] = SHARDS[i]!;
  }
  writeIndex(map);
  return map;
}

function writeIndex(map: Record<string, string>, file = INDEX): void {
  writeFileSync(join(dir, file), JSON.stringify({ metadata: { total_size: 1 }, weight_map: map }));
}

/** The same tensors as torch would save them, some of them. */
function writeBin(file: string, part: Iterable<[string, RawTensor]> = tensors): void {
  const list = [...part];
  const sources = list.map(([name, { shape, bytes }], i) => ({
    name,
    storage: "FloatStorage",
    key: String(i),
    storageElements: bytes.length / 4,
    shape,
  }));
  writeTorchFile(
    join(dir, file),
    stateDictPickle(sources),
    Object.fromEntries(list.map(([, { bytes }], i) => [i, bytes])),
  );
}

describe("weights", () => {
  it("are the same from one safetensors file, from shards, from a torch file and from shards of those", () => {
    const expected = valuesOf(SOURCE);
    expect(valuesOf(dir)).toEqual(expected);

    writeShards();
    expect(sourceFiles(dir)).toEqual(["config.json", ...SHARDS]);
    expect(valuesOf(dir)).toEqual(expected);
    for (const shard of [...SHARDS, INDEX]) rmSync(join(dir, shard));

    writeBin("pytorch_model.bin");
    expect(sourceFiles(dir)).toEqual(["config.json", "pytorch_model.bin"]);
    expect(valuesOf(dir)).toEqual(expected);
    rmSync(join(dir, "pytorch_model.bin"));

    const [first, second] = [[...tensors].slice(0, 7), [...tensors].slice(7)];
    writeBin("pytorch_model-00001-of-00002.bin", first);
    writeBin("pytorch_model-00002-of-00002.bin", second);
    const entry =
      (shard: string) =>
      ([name]: [string, RawTensor]) => [name, shard];
    const map = [
      ...first.map(entry("pytorch_model-00001-of-00002.bin")),
      ...second.map(entry("pytorch_model-00002-of-00002.bin")),
    ];
    writeIndex(Object.fromEntries(map), "pytorch_model.bin.index.json");
    expect(valuesOf(dir)).toEqual(expected);
    openCheckpoint(dir).close();
  });

  it("are taken from safetensors where a folder has both", () => {
    writeFileSync(join(dir, "pytorch_model.bin"), "not even a zip");
    expect(sourceFiles(dir)).toEqual(["config.json", "model.safetensors"]);
  });

  it("that are all missing are reported by all their names", () => {
    rmSync(join(dir, "model.safetensors"));
    expect(() => openCheckpoint(dir)).toThrow(
      refused(
        "holds none of model.safetensors, model.safetensors.index.json, pytorch_model.bin, pytorch_model.bin.index",
      ),
    );
  });

  it("of golden DenseRetNets hold the tensors that they should", () => {
    const [github, hub] = [valuesOf("test/fixtures/dense-retnet-github"), valuesOf("test/fixtures/dense-retnet-hub")];
    expect([...github.keys()]).toContain("model.retnet_rel_pos.decay");
    expect(github.get("model.embed_tokens.weight")).toHaveLength(160 * 64);
    expect(hub.get("model.embed_tokens.weight")).toHaveLength(160 * 64);
  });
});

describe("shards", () => {
  it("that are not there are named, with a tensor that they would hold", () => {
    const map = writeShards();
    rmSync(join(dir, SHARDS[1]));
    const name = Object.keys(map).find((key) => map[key] === SHARDS[1])!;
    expect(() => openWeights(dir)).toThrow(
      refused(`${SHARDS[1]} is missing; ${INDEX} says that it holds tensor ${name}`),
    );
  });

  it("must agree with the index: every tensor listed, in the shard that holds it, once", () => {
    const map = writeShards();
    const [name] = Object.keys(map) as [string];
    const { [name]: _, ...without } = map;
    writeIndex(without);
    expect(() => openWeights(dir)).toThrow(refused(`tensor ${name} of ${SHARDS[0]} is missing from ${INDEX}`));

    writeIndex({ ...map, [name]: SHARDS[1] });
    expect(() => openWeights(dir)).toThrow(refused(`tensor ${name} is in ${SHARDS[0]}; ${INDEX} says ${SHARDS[1]}`));

    writeIndex({ ...map, extra: SHARDS[1] });
    expect(() => openWeights(dir)).toThrow(refused(`tensor extra is not in ${SHARDS[1]}, where ${INDEX} says it is`));

    const text = JSON.stringify({ weight_map: map }).slice(0, -2);
    writeFileSync(join(dir, INDEX), `${text},${JSON.stringify(name)}:${JSON.stringify(SHARDS[1])}}}`);
    expect(() => openWeights(dir)).toThrow(refused(`lists ${name} twice`));
  });

  it("may not hold one tensor twice", () => {
    writeShards();
    cpSync(join(dir, SHARDS[0]), join(dir, SHARDS[1]));
    expect(() => openWeights(dir)).toThrow(refused(`stands in two files, ${SHARDS[0]} and ${SHARDS[1]}`));
  });

  it("must be as long as their headers say", () => {
    writeShards();
    const bytes = readFileSync(join(dir, SHARDS[0])).length;
    truncateSync(join(dir, SHARDS[0]), bytes - 1);
    expect(() => openWeights(dir)).toThrow(refused("but the file holds only"));
  });

  it("that shrink later are reported when they are read", () => {
    const weights = openWeights(dir);
    truncateSync(join(dir, "model.safetensors"), 4000);
    expect(() => weights.tensors.map(readAll)).toThrow(refused("the file ends at byte 4000"));
    weights.close();
  });

  it("are files of the folder and nothing else, and an index must be one", () => {
    const map = writeShards();
    const [name] = Object.keys(map) as [string];
    for (const shard of ["../secret.safetensors", "/etc/passwd", "a\\b", "", 7]) {
      writeIndex({ ...map, [name]: shard as string });
      expect(() => openWeights(dir)).toThrow(
        refused(`${JSON.stringify(shard)} is not the name of a file in this folder`),
      );
    }
    writeFileSync(join(dir, INDEX), "{");
    expect(() => openWeights(dir)).toThrow(refused(`${INDEX} is not JSON`));
    writeIndex({});
    expect(() => openWeights(dir)).toThrow(refused("weight_map lists no tensor"));
    writeFileSync(join(dir, INDEX), "{}");
    expect(() => openWeights(dir)).toThrow(refused("weight_map is missing"));
  });
});

describe("weights that are not finite", () => {
  const NAME = "backbone.layers.1.mixer.A_log";
  const spoil = (value: number, at: number) => {
    const raw = tensors.get(NAME)!;
    const values = new Float32Array(new Uint8Array(raw.bytes).buffer);
    values[at] = value;
    writeRawTensors(dir, new Map([...tensors, [NAME, { ...raw, bytes: asBytes(values) }]]));
  };

  it.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])(
    "are refused when they are read: %d, with tensor, index and value",
    (value) => {
      const columns = tensors.get(NAME)!.shape[1]!;
      spoil(value, 2 * columns + 1);
      const checkpoint = openCheckpoint(dir);
      expect(() => readAll(checkpoint.tensor(NAME))).toThrow(refused(`tensor ${NAME} [2,1] is ${value}`));
      // Whichever slice is asked for.
      expect(() => checkpoint.tensor(NAME).read(2 * columns, 2)).toThrow(refused(`[2,1] is ${value}`));
      expect(checkpoint.tensor(NAME).read(0, 2 * columns)).toHaveLength(2 * columns);
      checkpoint.close();
    },
  );

  it("pass where they are asked for", () => {
    spoil(Number.NaN, 0);
    const checkpoint = openCheckpoint(dir, { allowNonFinite: true });
    expect(readAll(checkpoint.tensor(NAME))[0]).toBeNaN();
    checkpoint.close();
  });
});

describe("a checkpoint", () => {
  it("may hold a tied head too, but no other tensor that is not used", () => {
    const embedding = tensors.get("backbone.embeddings.weight")!;
    writeRawTensors(dir, new Map([...tensors, ["lm_head.weight", embedding]]));
    const tied = openCheckpoint(dir);
    expect(tied.numParameters).toBe(openCheckpoint(SOURCE).numParameters);
    tied.close();
    writeRawTensors(dir, new Map([...tensors, ["extra.weight", embedding]]));
    expect(() => openCheckpoint(dir)).toThrow(refused("tensor extra.weight of shape"));
  });

  it("needs weights in a format that can be widened", () => {
    const [name, raw] = [...tensors][0]!;
    writeRawTensors(dir, new Map([...tensors, [name, { ...raw, dtype: "I32" }]]));
    expect(() => openCheckpoint(dir)).toThrow(refused(`tensor ${name} is I32, not one of F32, F16, BF16`));
  });

  it("of an unknown family is refused with those that are known", () => {
    editConfig(dir, { model_type: "rwkv" });
    expect(() => openCheckpoint(dir)).toThrow(
      refused('model_type is "rwkv", which is not supported; these are: dense_mamba, mamba'),
    );
  });

  it("is named after its folder, in Hugging Face's cache after its repository", () => {
    const snapshot = join(dir, "models--some-org--tiny-model", "snapshots", "0123456789abcdef");
    cpSync(SOURCE, snapshot, { recursive: true });
    const names = [SOURCE, `${SOURCE}/`, snapshot].map((folder) => {
      const checkpoint = openCheckpoint(folder);
      checkpoint.close();
      return checkpoint.name;
    });
    expect(names).toEqual(["torch-tiny-densemamba", "torch-tiny-densemamba", "some-org/tiny-model"]);
  });
});

describe("strict JSON", () => {
  it.each([
    ['{"a":1,"a":2}', "lists a twice"],
    ['{"x":{"b":1},"y":[{"b":1,"c":{"b":2},"b":3}]}', "lists b twice"],
    ['{"a":1,"\\u0061":2}', "lists a twice"],
    ["[1]", "is not a JSON object"],
    ["{", "is not JSON"],
  ])("refuses %s", (text, message) => {
    expect(() => parseJsonObject(text, "x")).toThrow(refused(message));
  });

  it.each(['{"a":"a","b":["a","a:","{"],"c":{"a":1},"d":{"a":"\\":"}}', "{}"])("takes %s", (text) => {
    expect(parseJsonObject(text, "x")).toEqual(JSON.parse(text));
  });
});
