/** What the oracles share: vectors in f32, sums in f64, no cleverness. Knows no family. */

export type Vector = Float32Array;

/** Of one sequence, by the names and shapes of the state spec. */
export type ReferenceState = Map<string, Vector>;

/** A whole weight, row-major. */
export type ReadWeight = (name: string) => Vector;

/** One architecture's forward pass, a step at a time. */
export interface Oracle {
  /** What follows `tokenId`. Advances `state` in place by one step. */
  step(tokenId: number, state: ReferenceState): OracleStep;
}

export interface OracleStep {
  /** [D]: the last layer's, normed. */
  readonly hidden: Vector;
  /** [V]: hidden state times head. */
  readonly logits: Vector;
}

/** x · rsqrt(mean(x²) + ε) · weight */
export function rmsNorm(x: Vector, weight: Vector, epsilon: number): Vector {
  const meanSquare = x.reduce((sum, value) => sum + value * value, 0) / x.length;
  const scale = 1 / Math.sqrt(meanSquare + epsilon);
  return x.map((value, i) => value * scale * weight[i]!);
}

/** (x - mean) / √(variance + ε) · weight + bias */
export function layerNorm(x: Vector, weight: Vector, bias: Vector, epsilon: number): Vector {
  const mean = x.reduce((sum, value) => sum + value, 0) / x.length;
  const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length;
  const scale = 1 / Math.sqrt(variance + epsilon);
  return x.map((value, i) => (value - mean) * scale * weight[i]! + bias[i]!);
}

export function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

export function silu(x: number): number {
  return x / (1 + Math.exp(-x));
}

/** log(1 + e^x), without overflow. */
export function softplus(x: number): number {
  return Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
}

/** y = W x, W [rows, columns]. */
export function matVec(weight: Vector, x: Vector): Vector {
  const columns = x.length;
  return new Float32Array(weight.length / columns).map((_, row) => {
    let sum = 0;
    for (let column = 0; column < columns; column++) sum += weight[row * columns + column]! * x[column]!;
    return sum;
  });
}

/** y = W x + b, W and b the tensors `<name>.weight` and `<name>.bias`. */
export function linear(weight: ReadWeight, x: Vector, name: string, { hasBias = false } = {}): Vector {
  const y = matVec(weight(`${name}.weight`), x);
  if (hasBias) addTo(y, weight(`${name}.bias`));
  return y;
}

/** target += addend */
export function addTo(target: Vector, addend: Vector): void {
  for (const [i, value] of addend.entries()) target[i]! += value;
}
