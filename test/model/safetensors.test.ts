import { readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { DenseMambaError } from "../../src/errors.ts";
import { openSafetensors, parseHeader } from "../../src/model/safetensors.ts";
import { temporaryFolder, writeSafetensors } from "../helpers/checkpoints.ts";

let folder: string;
let path: string;
beforeEach(() => {
  folder = temporaryFolder();
  path = join(folder, "model.safetensors");
});
afterEach(() => rmSync(folder, { recursive: true }));

function read(name: string, start: number, count: number): number[] {
  const file = openSafetensors(path);
  const values = Array.from(file.tensors.find((tensor) => tensor.name === name)!.read(start, count));
  file.close();
  return values;
}

const bytesOf = (array: ArrayBufferView) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

describe("a safetensors file", () => {
  it("gives slices of f32, f16 and bf16 tensors as f32", () => {
    const f32 = bytesOf(Float32Array.of(1.5, -2.25, 1e-30, 7));
    // 1, -2, 65504, 2^-24, -0, infinity; then the same in bf16 where it has them
    const f16 = bytesOf(Uint16Array.of(0x3c00, 0xc000, 0x7bff, 0x0001, 0x8000, 0x7c00));
    const bf16 = bytesOf(Uint16Array.of(0x3f80, 0xc000, 0x4780, 0x7f80));
    const header = {
      __metadata__: { format: "pt" },
      a: { dtype: "F32", shape: [2, 2], data_offsets: [0, 16] },
      b: { dtype: "F16", shape: [6], data_offsets: [16, 28] },
      c: { dtype: "BF16", shape: [4], data_offsets: [28, 36] },
    };
    writeSafetensors(folder, JSON.stringify(header), Buffer.concat([f32, f16, bf16]));
    expect(read("a", 1, 3)).toEqual([-2.25, Math.fround(1e-30), 7]);
    expect(read("b", 0, 6)).toEqual([1, -2, 65504, 2 ** -24, -0, Number.POSITIVE_INFINITY]);
    expect(read("c", 0, 4)).toEqual([1, -2, 65536, Number.POSITIVE_INFINITY]);
  });

  it("names the tensor when the file is cut short after it was opened", () => {
    const header = JSON.stringify({ cut: { dtype: "F32", shape: [4], data_offsets: [0, 16] } });
    writeSafetensors(folder, header, new Uint8Array(16));
    const file = openSafetensors(path);
    truncateSync(path, 8 + header.length + 10);
    expect(() => file.tensors[0]!.read(0, 4)).toThrow(/tensor cut: the file ends at byte/);
    file.close();
  });
});

describe("a safetensors file that lies", () => {
  const valid = { dtype: "F32", shape: [2], data_offsets: [0, 8] };
  const refused = (what: string, header: unknown, message: RegExp) => ({ what, header, message });
  it.each([
    refused(
      "an end past the file's",
      { t: { ...valid, shape: [4], data_offsets: [0, 16] } },
      /tensor t: .*16.* 8 bytes/,
    ),
    refused("an end before its begin", { t: { ...valid, data_offsets: [8, 0] } }, /tensor t: .*begin at 8, after .* 0/),
    refused("negative offsets", { t: { ...valid, data_offsets: [-8, 0] } }, /tensor t: data_offsets \[-8,0\]/),
    refused(
      "a shape that the bytes do not fill",
      { t: { ...valid, shape: [3] } },
      /tensor t: shape \[3\].* 12 bytes.* 8/,
    ),
    refused("a fractional shape", { t: { ...valid, shape: [0.5, 4] } }, /tensor t: shape \[0.5,4\]/),
    refused("a shape too large to count", { t: { ...valid, shape: [2 ** 40, 2 ** 40] } }, /tensor t: shape/),
    refused("an unknown dtype", { t: { ...valid, dtype: "I4" } }, /tensor t: dtype "I4" is not one of F32, F16, BF16/),
    refused("a dtype from the prototype", { t: { ...valid, dtype: "toString" } }, /tensor t: dtype "toString"/),
    refused("no offsets", { t: { dtype: "F32", shape: [2] } }, /tensor t: data_offsets undefined/),
    refused("an entry that is no object", { t: 3 }, /tensor t: its header entry/),
    refused(
      "overlapping tensors",
      { a: valid, b: { ...valid, shape: [1], data_offsets: [4, 8] } },
      /b begins at byte 4, before a ends at 8/,
    ),
    refused("a list for a header", [], /not a JSON object/),
  ])("is refused for $what", ({ header, message }) => {
    writeSafetensors(folder, JSON.stringify(header), new Uint8Array(8));
    expect(() => openSafetensors(path)).toThrow(message);
    expect(() => openSafetensors(path)).toThrow(expect.objectContaining({ code: "invalid_checkpoint" }));
  });

  it.each([
    ["past the file's end", 1000n, /claims 1000 bytes, but at most 10 are possible/],
    ["near 2^64", 2n ** 64n - 1n, /claims 18446744073709551615 bytes/],
  ])("is refused for a header length %s", (_, length, message) => {
    writeSafetensors(folder, "{}", new Uint8Array(8), length);
    expect(() => openSafetensors(path)).toThrow(message);
  });

  it("is refused when it is too short for a length, or no JSON", () => {
    writeFileSync(path, "1234567");
    expect(() => openSafetensors(path)).toThrow(/7 bytes, but a safetensors file has at least 8/);
    writeSafetensors(folder, "{nonsense", new Uint8Array(8));
    expect(() => openSafetensors(path)).toThrow(/header is not JSON/);
  });

  it("is never believed: any damage to a header gives invalid_checkpoint or sound tensors", () => {
    writeSafetensors(folder, JSON.stringify({ a: valid, b: { ...valid, data_offsets: [8, 16] } }), new Uint8Array(16));
    const sound = readFileSync(path);
    fc.assert(
      fc.property(fc.nat(sound.length - 1), fc.integer({ min: 0, max: 255 }), (position, byte) => {
        const damaged = Buffer.from(sound);
        damaged[position] = byte;
        writeFileSync(path, damaged);
        try {
          const file = openSafetensors(path);
          for (const tensor of file.tensors)
            tensor.read(
              0,
              tensor.shape.reduce((a, b) => a * b, 1),
            );
          file.close();
        } catch (error) {
          expect((error as DenseMambaError).code).toBe("invalid_checkpoint");
        }
      }),
      { numRuns: 200 },
    );
  });

  it("accepts exactly the headers whose tensors lie apart and inside the data", () => {
    const ranges = fc.array(fc.tuple(fc.nat(40), fc.nat(40)), { minLength: 1, maxLength: 5 });
    fc.assert(
      fc.property(ranges, fc.nat(60), (pairs, dataFloats) => {
        const header = Object.fromEntries(
          pairs.map(([begin, length], i) => [
            `t${i}`,
            { dtype: "F32", shape: [length], data_offsets: [4 * begin, 4 * (begin + length)] },
          ]),
        );
        const owners = new Map<number, number>();
        let sound = pairs.every(([begin, length]) => begin + length <= dataFloats);
        for (const [i, [begin, length]] of pairs.entries()) {
          for (let at = begin; at < begin + length; at++) {
            if (owners.has(at)) sound = false;
            owners.set(at, i);
          }
        }
        let accepted = true;
        try {
          parseHeader(JSON.stringify(header), 4 * dataFloats, "f");
        } catch (error) {
          expect(error).toBeInstanceOf(DenseMambaError);
          accepted = false;
        }
        // An empty tensor inside another one overlaps nothing; it may be refused or not.
        if (pairs.every(([, length]) => length > 0)) expect(accepted).toBe(sound);
      }),
    );
  });
});
