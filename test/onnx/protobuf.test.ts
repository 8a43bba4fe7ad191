import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { encodeVarint, MessageWriter } from "../../src/onnx/protobuf.ts";
import { decodeMessage, decodeVarint } from "./decode-varint.ts";

describe("encodeVarint", () => {
  it("round-trips every int64, in at most ten bytes", () => {
    fc.assert(
      fc.property(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), (value) => {
        const bytes = encodeVarint(value);
        expect(bytes.length).toBeLessThanOrEqual(10);
        const [decoded, end] = decodeVarint(bytes, 0);
        expect(end).toBe(bytes.length);
        expect(BigInt.asIntN(64, decoded)).toBe(value);
      }),
    );
  });

  it("is the shortest: seven bits a byte", () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }), (value) => {
        const bits = value.toString(2).length;
        expect(encodeVarint(value)).toHaveLength(Math.max(1, Math.ceil(bits / 7)));
      }),
    );
  });

  it("gives the bytes of the format's own example", () => {
    expect([...encodeVarint(150)]).toEqual([0x96, 0x01]);
  });

  it("refuses what int64 does not hold", () => {
    expect(() => encodeVarint(2n ** 63n)).toThrow(/9223372036854775808 does not fit in int64/);
  });
});

describe("MessageWriter", () => {
  it("writes fields that decode to what was written, nested ones too", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2 ** 20 }), fc.string(), fc.float({ noNaN: true }), (field, text, real) => {
        const bytes = new MessageWriter()
          .string(field, text)
          .message(2, (inner) => inner.float(field, real).int(1, -1))
          .finish();
        const [string, message] = decodeMessage(bytes);
        expect(string!.number).toBe(field);
        expect(new TextDecoder().decode(string!.value as Uint8Array)).toBe(text);
        const [float, int] = decodeMessage(message!.value as Uint8Array);
        const view = Buffer.from(float!.value as Uint8Array);
        expect(float).toMatchObject({ number: field, wireType: 5 });
        expect(view.readFloatLE()).toBe(real);
        expect(BigInt.asIntN(64, int!.value as bigint)).toBe(-1n);
      }),
    );
  });
});
