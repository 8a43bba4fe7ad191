/**
 * torch's files: real ones give what safetensors gives, and none can make us do or believe
 * anything.
 */
import { createHash } from "node:crypto";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { asBytes } from "../../src/compiler/matrix.ts";
import { openTorchFile } from "../../src/model/torch-file.ts";
import { readAll } from "../../src/model/weights.ts";
import { temporaryFolder } from "../helpers/checkpoints.ts";
import { op, stateDictPickle, type TorchSource, writeTorchFile, zipBytes } from "../helpers/torch-files.ts";

const REAL = "test/fixtures/dense-retnet-github/pytorch_model.bin";
let folder: string;
let path: string;

beforeAll(() => {
  folder = temporaryFolder();
  path = join(folder, "pytorch_model.bin");
});
afterAll(() => rmSync(folder, { recursive: true }));

const f32 = (...values: number[]) => asBytes(Float32Array.from(values));
const u16 = (...values: number[]) => new Uint8Array(Uint16Array.from(values).buffer);

function refusal(file = path): string {
  let message = "";
  expect(() => {
    try {
      openTorchFile(file).close();
    } catch (error) {
      message = (error as Error).message;
      throw error;
    }
  }).toThrow(expect.objectContaining({ code: "invalid_checkpoint" }));
  return message;
}

/** All tensors of a file that is known to be sound. */
function contents(file = path): Map<string, number[]> {
  const weights = openTorchFile(file);
  try {
    return new Map(weights.tensors.map((tensor) => [tensor.name, [...readAll(tensor)]]));
  } finally {
    weights.close();
  }
}

describe("a file that torch wrote", () => {
  it("holds the bytes that its zip entries hold", () => {
    const weights = openTorchFile(REAL);
    const embedding = weights.tensors.find(({ name }) => name === "model.embed_tokens.weight")!;
    expect(embedding).toMatchObject({ shape: [160, 64], dtype: "F32" });
    // sha256 of the entry data/0, by Python's zipfile.
    expect(
      createHash("sha256")
        .update(asBytes(readAll(embedding)))
        .digest("hex"),
    ).toBe("26e6d06e509407f5f39779841fd8757e4aee8d2d716463c8c465915536873bc2");
    expect([...embedding.read(70, 3)]).toEqual([...readAll(embedding).slice(70, 73)]);
    weights.close();
  });

  it("is refused wherever it is cut off, and whichever of its directory's or pickle's bytes is damaged", () => {
    const whole = readFileSync(REAL);
    for (const length of [0, 10, 1000, whole.length >> 1, whole.length - 100, whole.length - 1]) {
      writeFileSync(path, whole.subarray(0, length));
      expect(refusal()).toMatch(/cut off|ends at/);
    }
    const pickleStart = whole.indexOf(Buffer.from([0x80, 2, 0x7d]));
    for (let at = 0; at < 80; at++) {
      const damaged = Buffer.from(whole);
      const place = pickleStart + at * 67;
      damaged[place] = damaged[place]! ^ 0xff;
      writeFileSync(path, damaged);
      try {
        openTorchFile(path).close();
      } catch (error) {
        expect(error).toMatchObject({ code: "invalid_checkpoint" });
      }
    }
  });
});

describe("storages", () => {
  const one = (source: Partial<TorchSource> & Pick<TorchSource, "storage">) =>
    stateDictPickle([{ name: "w", key: "0", storageElements: 6, shape: [2, 3], ...source }]);

  it("may be f32, f16 and bf16, each widened exactly", () => {
    writeTorchFile(path, one({ storage: "FloatStorage" }), { 0: f32(1, 2, 3, 4, 5, 0.1) });
    expect(contents().get("w")).toEqual([1, 2, 3, 4, 5, Math.fround(0.1)]);
    // 1, -2, the largest, the smallest normal, the smallest of all, -0
    writeTorchFile(path, one({ storage: "HalfStorage" }), { 0: u16(0x3c00, 0xc000, 0x7bff, 0x0400, 0x0001, 0x8000) });
    expect(contents().get("w")).toEqual([1, -2, 65504, 2 ** -14, 2 ** -24, -0]);
    writeTorchFile(path, one({ storage: "BFloat16Storage" }), {
      0: u16(0x3f80, 0xc000, 0x7f80, 0x0001, 0x4049, 0x8000),
    });
    expect(contents().get("w")).toEqual([1, -2, Number.POSITIVE_INFINITY, 2 ** -133, 3.140625, -0]);
  });

  it("are only sized, not read, in other formats", () => {
    writeTorchFile(path, one({ storage: "LongStorage" }), { 0: Buffer.alloc(48) });
    const weights = openTorchFile(path);
    expect(weights.tensors[0]!.dtype).toBe("I64");
    expect(() => weights.tensors[0]!.read(0, 1)).toThrow("tensor w is I64, not one of F32, F16, BF16");
    weights.close();
  });

  it("may be shared, by tied weights or by slices of one", () => {
    const shared = { storage: "FloatStorage", key: "0", storageElements: 6 };
    const pickle = stateDictPickle([
      { name: "embedding", shape: [3, 2], ...shared },
      { name: "head", shape: [3, 2], parameter: true, ...shared },
      { name: "last", shape: [1, 2], offset: 4, ...shared },
    ]);
    writeTorchFile(path, pickle, { 0: f32(1, 2, 3, 4, 5, 6) });
    expect(contents()).toEqual(
      new Map([
        ["embedding", [1, 2, 3, 4, 5, 6]],
        ["head", [1, 2, 3, 4, 5, 6]],
        ["last", [5, 6]],
      ]),
    );
  });

  it("may be seen transposed, strided or repeated, in whole and in parts", () => {
    const shared = { storage: "FloatStorage", key: "0", storageElements: 6 };
    const pickle = stateDictPickle([
      { name: "transposed", shape: [3, 2], strides: [1, 3], ...shared },
      { name: "column", shape: [2, 1], strides: [3, 99], offset: 1, ...shared },
      { name: "repeated", shape: [2, 3], strides: [0, 1], ...shared },
    ]);
    writeTorchFile(path, pickle, { 0: f32(1, 2, 3, 4, 5, 6) });
    expect(contents()).toEqual(
      new Map([
        ["transposed", [1, 4, 2, 5, 3, 6]],
        ["column", [2, 5]],
        ["repeated", [1, 2, 3, 1, 2, 3]],
      ]),
    );
    const weights = openTorchFile(path);
    expect([...weights.tensors[0]!.read(3, 2)]).toEqual([5, 3]);
    weights.close();
  });

  it.each([true, "position"] as const)("may lie in a zip with wide fields: %s", (zip64) => {
    writeTorchFile(path, one({ storage: "FloatStorage" }), { 0: f32(1, 2, 3, 4, 5, 6) }, { zip64 });
    expect(contents().get("w")).toEqual([1, 2, 3, 4, 5, 6]);
  });

  it("must be as long as they claim, and hold what the tensors see, before anything is allocated", () => {
    writeTorchFile(path, one({ storage: "FloatStorage", storageElements: 2 ** 40 }), { 0: f32(1, 2) });
    expect(refusal()).toContain("tensor w: its storage claims 4398046511104 bytes, but data/0 holds 8");
    writeTorchFile(path, one({ storage: "FloatStorage", shape: [2 ** 30, 2 ** 30] }), { 0: f32(1, 2, 3, 4, 5, 6) });
    expect(refusal()).toContain("tensor w: shape [1073741824,1073741824] holds more than any file");
    writeTorchFile(path, one({ storage: "FloatStorage", offset: 1 }), { 0: f32(1, 2, 3, 4, 5, 6) });
    expect(refusal()).toContain("ends at element 7; its storage has 6");
    writeTorchFile(path, one({ storage: "FloatStorage", key: "7" }), { 0: f32(1, 2, 3, 4, 5, 6) });
    expect(refusal()).toContain("its storage data/7 is missing");
    writeTorchFile(path, one({ storage: "FloatStorage", offset: -1 }), { 0: f32(1, 2, 3, 4, 5, 6) });
    expect(refusal()).toContain("a tensor is not made of");
    writeTorchFile(path, one({ storage: "FloatStorage" }), { 0: f32(1, 2, 3, 4, 5, 6) }, { byteOrder: "big" });
    expect(refusal()).toContain('byte order "big" is not "little"');
  });
});

describe("a pickle", () => {
  const program = (...parts: readonly Uint8Array[]) => writeTorchFile(path, Buffer.concat(parts));
  const item = (...value: readonly Buffer[]) =>
    program(op.proto, op.dict, op.mark, op.text("w"), ...value, op.setItems, op.stop);

  it("that calls os.system is refused by name, and calls nothing", () => {
    const proof = join(folder, "called");
    const call = [op.global("os", "system"), op.mark, op.text(`touch ${proof}`), op.tuple, op.reduce];
    item(...call);
    expect(refusal()).toContain('it names "os.system", which weights do not need; refused');
    expect(() => readFileSync(proof)).toThrow("ENOENT");
  });

  /**
   * `pickle.dumps({"w": Attack()}, protocol)`, where `Attack.__reduce__` returns `os.system,
   * ("true",)`.
   */
  it.each([
    [0, "286470300a56770a70310a63706f7369780a73797374656d0a70320a2856747275650a70330a7470340a5270350a732e"],
    [1, "7d7100580100000077710163706f7369780a73797374656d0a7102285804000000747275657103747104527105732e"],
    [2, "80027d7100580100000077710163706f7369780a73797374656d0a71025804000000747275657103857104527105732e"],
    [3, "80037d7100580100000077710163706f7369780a73797374656d0a71025804000000747275657103857104527105732e"],
    [4, "80049526000000000000007d948c0177948c05706f736978948c0673797374656d9493948c04747275659485945294732e"],
    [5, "80059526000000000000007d948c0177948c05706f736978948c0673797374656d9493948c04747275659485945294732e"],
  ])("that calls os.system, made by Python itself in protocol %i, is refused by name", (protocol, hex) => {
    program(Buffer.from(hex, "hex"));
    // Protocols 0 and 1 say even plain data with instructions that torch never writes.
    expect(refusal()).toMatch(protocol < 2 ? /"posix\.system"|instruction 0x/ : /it names "posix\.system"/);
  });

  it.each(["builtins.eval", "torch._utils.__builtins__", "torch.load", "torch.constructor", "torch.toString"])(
    "that names %s is refused",
    (name) => {
      const dot = name.lastIndexOf(".");
      item(op.global(name.slice(0, dot), name.slice(dot + 1)));
      expect(refusal()).toContain(`"${name}"`);
    },
  );

  it.each([
    ["INST", Buffer.from("(ios\nsystem\n")],
    ["OBJ", Buffer.from("(o")],
    ["NEWOBJ", Buffer.from([0x81])],
    ["EXT1", Buffer.from([0x82, 1])],
    ["0xff", Buffer.from([0xff])],
  ])("with the instruction %s is refused by that name", (name, bytes) => {
    program(op.proto, bytes, op.stop);
    expect(refusal()).toContain(`instruction ${name} at byte`);
  });

  it("may call only functions of ours, and make no objects of data", () => {
    item(op.text("eval"), op.mark, op.text("1"), op.tuple, op.reduce);
    expect(refusal()).toContain("it calls something that is not a function");
    item(op.text("x"), op.dict, op.build);
    expect(refusal()).toContain("it sets attributes of something that is not a dict");
    item(op.global("torch", "FloatStorage"), op.emptyTuple, op.reduce);
    expect(refusal()).toContain("it calls something that is not a function");
  });

  it("must hold a dict of tensors", () => {
    program(op.proto, op.number(1), op.stop);
    expect(refusal()).toContain("it does not hold a dict of tensors");
    item(op.number(1));
    expect(refusal()).toContain("w is not a tensor");
    item(op.dict);
    expect(refusal()).toContain("w is not a tensor");
  });

  it("may list a tensor once only", () => {
    const source = { name: "w", storage: "FloatStorage", key: "0", storageElements: 1, shape: [1] };
    writeTorchFile(path, stateDictPickle([source, source]), { 0: f32(1) });
    expect(refusal()).toContain("it lists w twice");
  });

  it("keeps the notes that torch puts on its dict out of the weights", () => {
    const dict = stateDictPickle([{ name: "w", storage: "FloatStorage", storageElements: 1, shape: [1] }]).subarray(
      0,
      -1,
    );
    const notes = [op.dict, op.mark, op.text("_metadata"), op.dict, op.setItems, op.build];
    writeTorchFile(path, Buffer.concat([dict, ...notes, op.stop]), { 0: f32(7) });
    expect(contents()).toEqual(new Map([["w", [7]]]));
  });

  it("that is nonsense is refused, not followed", () => {
    const wrong = [
      Buffer.from([0x80, 9]),
      Buffer.from("h\x05."),
      Buffer.from("."),
      Buffer.from("t."),
      Buffer.from("X\xff\xff\xff\x7f", "latin1"),
      Buffer.from("cos"),
      Buffer.from("}K\x01a."),
    ];
    for (const bytes of wrong) {
      program(bytes);
      expect(refusal()).toContain("archive/data.pkl: ");
    }
  });
});

describe("a zip", () => {
  const pickle = { name: "archive/data.pkl", bytes: stateDictPickle([]) };
  const write = (...args: Parameters<typeof zipBytes>) => writeFileSync(path, zipBytes(...args));

  it("with absurd sizes is refused with the bound, in narrow and in wide fields", () => {
    write([{ ...pickle, claims: { numBytes: 2 ** 31 } }]);
    expect(refusal()).toMatch(/zip entry archive\/data\.pkl claims 2147483648 bytes at \d+, but the data ends at byte/);
    write([{ ...pickle, claims: { numBytes: 2 ** 50 } }], { zip64: true });
    expect(refusal()).toContain("claims 1125899906842624 bytes");
    write([{ ...pickle, claims: { position: 2 ** 40 } }], { zip64: true });
    expect(refusal()).toContain("claims to begin at byte 1099511627776");
    write([pickle], { numEntries: 60_000 });
    expect(refusal()).toContain("claims 60000 entries");
    write([pickle], { numEntries: 2 ** 40, zip64: true });
    expect(refusal()).toContain("claims 1099511627776 entries");
  });

  it("whose entries are compressed, listed twice, none or several pickles is refused", () => {
    write([{ ...pickle, claims: { method: 8 } }]);
    expect(refusal()).toContain("is compressed (method 8)");
    write([pickle, pickle]);
    expect(refusal()).toContain("archive/data.pkl is listed twice");
    write([{ name: "archive/version", bytes: Buffer.from("3") }]);
    expect(refusal()).toContain("0 entries */data.pkl");
    write([pickle, { ...pickle, name: "other/data.pkl" }]);
    expect(refusal()).toContain("2 entries */data.pkl");
  });

  it("that is no zip is refused as such: an old torch file, a page of HTML, a file that is not there", () => {
    writeFileSync(path, Buffer.from("80028a0a6cfc9c46f9206aa850192e", "hex"));
    expect(refusal()).toContain("not a file of torch ≥ 1.6");
    writeFileSync(path, "<html>Not found</html>");
    expect(refusal()).toContain("no zip directory");
    expect(refusal(join(folder, "nowhere.bin"))).toContain("cannot open");
  });
});
