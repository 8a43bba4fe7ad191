/**
 * Reads the GGUF that tests look into: version 3, f32 tensors. Written from the format's
 * description, not from our writer.
 */

export interface ReadGguf {
  readonly metadata: Readonly<Record<string, unknown>>;
  /** Shapes row-major. */
  readonly tensors: ReadonlyMap<string, { readonly shape: readonly number[]; readonly values: Float32Array }>;
}

export function readGguf(bytes: Buffer): ReadGguf {
  let at = 8;
  const take = (count: number) => {
    at += count;
    return at - count;
  };
  const u32 = () => bytes.readUInt32LE(take(4));
  const u64 = () => Number(bytes.readBigUInt64LE(take(8)));
  const text = () => {
    const length = u64();
    const start = take(length);
    return bytes.toString("utf8", start, start + length);
  };
  const value = (type: number): unknown => {
    if (type === 4) return u32();
    if (type === 5) return bytes.readInt32LE(take(4));
    if (type === 6) return bytes.readFloatLE(take(4));
    if (type === 7) return bytes[take(1)] === 1;
    if (type === 8) return text();
    if (type !== 9) throw new Error(`value type ${type}`);
    const itemType = u32();
    return Array.from({ length: u64() }, () => value(itemType));
  };
  if (bytes.toString("latin1", 0, 4) !== "GGUF" || bytes.readUInt32LE(4) !== 3) throw new Error("not GGUF version 3");
  const numTensors = u64();
  const numValues = u64();
  const metadata = Object.fromEntries(Array.from({ length: numValues }, () => [text(), value(u32())]));
  const infos = Array.from({ length: numTensors }, () => {
    const name = text();
    const shape = Array.from({ length: u32() }, u64).reverse();
    if (u32() !== 0) throw new Error(`${name} is not f32`);
    return { name, shape, offset: u64() };
  });
  const dataStart = Math.ceil(at / 32) * 32;
  const tensors = infos.map(({ name, shape, offset }) => {
    const count = shape.reduce((product, size) => product * size, 1);
    const start = dataStart + offset;
    if (start % 32 !== 0 || start + count * 4 > bytes.length) throw new Error(`${name} lies outside or askew`);
    const values = Float32Array.from({ length: count }, (_, i) => bytes.readFloatLE(start + i * 4));
    return [name, { shape, values }] as const;
  });
  return { metadata, tensors: new Map(tensors) };
}
