/** States that RWKV-7 models were tuned to begin with, sound and not. */
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { openTorchFile } from "../../src/model/torch-file.ts";
import { readTunedState } from "../../src/model/tuned-state.ts";
import { readAll } from "../../src/model/weights.ts";
import { op, stateDictPickle, type TorchSource, zipBytes } from "../helpers/torch-files.ts";

const PERSONA = "test/fixtures/rwkv7-tiny/persona.pth";
const [D, H, N, L] = [32, 2, 16, 3];

const SPEC = Array.from({ length: L }, (_, layer) => [
  { name: `att_shift.${layer}`, shape: [1, D] },
  { name: `wkv.${layer}`, shape: [H, N, N] },
  { name: `ffn_shift.${layer}`, shape: [1, D] },
]).flat();

const floatsOf = (bytes: Uint8Array) => new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
const nameOf = (layer: number) => `blocks.${layer}.att.time_state`;

function tensorsOf(file: string): Map<string, Float32Array> {
  const weights = openTorchFile(file);
  const tensors = new Map(weights.tensors.map((tensor) => [tensor.name, readAll(tensor)]));
  weights.close();
  return tensors;
}

function safetensors(tensors: Record<string, { shape: number[]; data: Float32Array }>): Buffer {
  let at = 0;
  const header: Record<string, object> = {};
  for (const [name, { shape, data }] of Object.entries(tensors)) {
    header[name] = { dtype: "F32", shape, data_offsets: [at, at + data.byteLength] };
    at += data.byteLength;
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, ...Object.values(tensors).map(({ data }) => Buffer.from(data.buffer))]);
}

const matrices = (change: (tensors: Record<string, { shape: number[]; data: Float32Array }>) => void = () => {}) => {
  const tensors = Object.fromEntries(
    Array.from({ length: L }, (_, layer) => [
      nameOf(layer),
      { shape: [H, N, N], data: new Float32Array(H * N * N).map((_, i) => layer + i / 1000) },
    ]),
  );
  change(tensors);
  return safetensors(tensors);
};

it("is each head's matrix the other way round, and zeros", async () => {
  const state = floatsOf(await readTunedState(readFileSync(PERSONA), "p", SPEC));
  const given = tensorsOf(PERSONA);
  let at = 0;
  for (let layer = 0; layer < L; layer++) {
    expect(state.slice(at, at + D)).toEqual(new Float32Array(D));
    at += D;
    for (let i = 0; i < H * N * N; i++) {
      const [head, key, value] = [Math.floor(i / (N * N)), Math.floor(i / N) % N, i % N];
      expect(state[at + i]).toBe(given.get(nameOf(layer))![(head * N + value) * N + key]);
    }
    at += H * N * N + D;
  }
  expect(at).toBe(state.length);
});

it("may be in safetensors, and narrowed to f16", async () => {
  const wide = floatsOf(await readTunedState(matrices(), "p", SPEC));
  expect(wide[D + 1]).toBeCloseTo(N / 1000);
  const half = SPEC.map((tensor) => (tensor.name.startsWith("wkv") ? { ...tensor, dtype: "f16" as const } : tensor));
  expect((await readTunedState(matrices(), "p", half)).length).toBe(4 * L * 2 * D + 2 * L * H * N * N);
});

const torch = (pickle: Buffer, data: Uint8Array = new Uint8Array(4)) =>
  zipBytes([
    { name: "p/data.pkl", bytes: pickle },
    { name: "p/data/0", bytes: data },
  ]);
const source = (more: Partial<TorchSource> = {}): TorchSource => ({
  name: nameOf(0),
  storage: "FloatStorage",
  storageElements: H * N * N,
  shape: [H, N, N],
  ...more,
});

it.each<[string, () => Uint8Array, RegExp]>([
  [
    "another shape",
    () => matrices((all) => (all[nameOf(1)] = { shape: [H, N * N], data: new Float32Array(H * N * N) })),
    /blocks\.1\.att\.time_state has the shape \[2,256\]; this model's is \[2,16,16\]/,
  ],
  ["a missing layer", () => matrices((all) => delete all[nameOf(2)]), /blocks\.2\.att\.time_state is missing/],
  [
    "another layer",
    () => matrices((all) => (all[nameOf(3)] = all[nameOf(0)]!)),
    /blocks\.3\.att\.time_state is none of a tuned state of this model, which has blocks\.0 to 2/,
  ],
  [
    "a number that is not finite",
    () => matrices((all) => (all[nameOf(0)]!.data[5] = Number.NaN)),
    /time_state holds NaN; states must be finite/,
  ],
  ["a file that is cut off", () => matrices().subarray(0, 2000), /ends at byte|claims/],
  ["a file that is cut off in its zip", () => readFileSync(PERSONA).subarray(0, 5000), /no zip directory at its end/],
  ["nothing", () => new Uint8Array(0), /0 bytes, but a safetensors file has at least 8/],
  ["text", () => Buffer.from("a persona of many words"), /the header claims/],
  [
    "a header of 10 GB",
    () => Buffer.concat([Buffer.from(BigUint64Array.of(10n * 2n ** 30n).buffer), Buffer.alloc(100)]),
    /the header claims 10737418240 bytes/,
  ],
  [
    "a header of 2 MB",
    () => Buffer.concat([Buffer.from(BigUint64Array.of(2n ** 21n).buffer), Buffer.alloc(2 ** 21)]),
    /the header claims 2097152 bytes, but at most 1048576/,
  ],
  [
    "a pickle that calls",
    () =>
      torch(
        Buffer.concat([
          op.proto,
          ...[op.global("os", "system"), op.mark, op.text("touch /tmp/called"), op.tuple, op.reduce, op.stop],
        ]),
      ),
    /os/,
  ],
  ["a pickle of 2 MB", () => torch(Buffer.alloc(2 ** 21)), /data\.pkl has 2097152 bytes, at most 1048576/],
  [
    "a storage that is not there",
    () => torch(stateDictPickle([source({ key: "9" })])),
    /its storage data\/9 is missing/,
  ],
  [
    "a storage that is shorter than it claims",
    () => torch(stateDictPickle([source()]), new Uint8Array(100)),
    /claims 2048 bytes, but data\/0 holds 100/,
  ],
])("%s is refused", async (_, file, message) => {
  await expect(readTunedState(file(), "persona p", SPEC)).rejects.toMatchObject({
    code: "invalid_checkpoint",
    message: expect.stringMatching(message),
  });
});

it("of another family there is none", async () => {
  const spec = [{ name: "ssm.0", shape: [4, 4] }];
  await expect(readTunedState(matrices(), "persona p", spec)).rejects.toThrow("tuned states are of RWKV-7");
});
