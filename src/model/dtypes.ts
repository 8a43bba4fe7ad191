/**
 * The number formats that weights are stored in, by safetensors' names, and their widening to f32.
 * Knows no file.
 */

/**
 * Bytes of an element. Of those that are not `FLOAT_DTYPES` only the size is known: they can be
 * passed over, not read.
 */
export const DTYPE_BYTES: Readonly<Record<string, number>> = {
  F32: 4,
  F16: 2,
  BF16: 2,
  F64: 8,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U64: 8,
  U32: 4,
  U16: 2,
  U8: 1,
  BOOL: 1,
};

export const FLOAT_DTYPES = ["F32", "F16", "BF16"] as const;

export type FloatDtype = (typeof FLOAT_DTYPES)[number];

export function isFloatDtype(dtype: string): dtype is FloatDtype {
  return FLOAT_DTYPES.some((known) => known === dtype);
}

/** `bytes` owns its whole ArrayBuffer, little-endian; the result may share it. */
export function widen(dtype: FloatDtype, bytes: Buffer): Float32Array {
  if (dtype === "F32") return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
  return dtype === "F16" ? widenF16(halves) : widenBf16(halves);
}

/** The largest that f16 can hold. */
export const MAX_F16 = 65504;

const F32_INFINITY = 0x7f800000;
/** What an exponent gains from f16's bias of 15 to f32's of 127, in place. */
const REBIAS = (127 - 15) << 23;

/** 1 sign bit, 5 of exponent, 10 of fraction. `bits` is not changed. */
export function widenF16(bits: Uint16Array): Float32Array {
  const floats = new Float32Array(bits.length);
  const wide = new Uint32Array(floats.buffer);
  for (let i = 0; i < bits.length; i++) {
    const half = bits[i]!;
    const sign = (half & 0x8000) << 16;
    const magnitude = half & 0x7fff;
    if (magnitude >= 0x7c00) wide[i] = sign | F32_INFINITY | ((magnitude & 0x3ff) << 13);
    else if (magnitude >= 0x400) wide[i] = sign | ((magnitude << 13) + REBIAS);
    // Below the smallest normal number the fraction alone counts, in steps of 2^-24.
    else floats[i] = (sign === 0 ? 1 : -1) * magnitude * 2 ** -24;
  }
  return floats;
}

/**
 * The nearest f16 of each, of two as near the even one; past 65504 infinite. What `widenF16` reads
 * back.
 */
export function narrowF16(floats: Float32Array): Uint16Array {
  const bits = new Uint32Array(floats.buffer, floats.byteOffset, floats.length);
  const halves = new Uint16Array(bits.length);
  const small = new Float32Array(1);
  const smallBits = new Uint32Array(small.buffer);
  for (let i = 0; i < bits.length; i++) {
    const sign = (bits[i]! >>> 16) & 0x8000;
    const magnitude = bits[i]! & 0x7fff_ffff;
    if (magnitude > F32_INFINITY) halves[i] = sign | 0x7e00;
    else if (magnitude >= F32_OF_2_16) halves[i] = sign | 0x7c00;
    else if (magnitude >= F32_OF_2_MINUS_14) {
      halves[i] = sign | ((magnitude - REBIAS + 0xfff + ((magnitude >> 13) & 1)) >> 13);
    } else {
      // Added to 0.5, whose last bit is worth 2^-24, the number is rounded to f16's steps below its
      // smallest normal.
      small[0] = Math.abs(floats[i]!) + 0.5;
      halves[i] = sign | (smallBits[0]! - F32_OF_HALF);
    }
  }
  return halves;
}

const F32_OF_2_16 = 0x4780_0000;
const F32_OF_2_MINUS_14 = 0x3880_0000;
const F32_OF_HALF = 0x3f00_0000;

/** The upper half of an f32. `bits` is not changed. */
/** The nearest bf16 of each, of two as near the even one. What `widenBf16` reads back. */
export function narrowBf16(floats: Float32Array): Uint16Array {
  const bits = new Uint32Array(floats.buffer, floats.byteOffset, floats.length);
  return Uint16Array.from(bits, (word) => {
    const notANumber = (word & 0x7fff_ffff) > F32_INFINITY;
    return notANumber ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  });
}

export function widenBf16(bits: Uint16Array): Float32Array {
  const wide = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) wide[i] = bits[i]! << 16;
  return new Float32Array(wide.buffer);
}
