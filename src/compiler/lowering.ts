/**
 * The context of a lowering: what every operator is emitted into and from. Knows no architecture.
 */
import type { LoweringKind, Precision } from "../model/artifact.ts";
import type { StateSpec } from "../model/state.ts";
import type { WeightTensor } from "../model/weights.ts";
import type { Graph, Value } from "../onnx/graph.ts";
import type { DataType } from "../onnx/tensor.ts";
import type { FloatType } from "./matrix.ts";

export interface Lowering {
  readonly graph: Graph;
  /** Of the large matrices; operators keep what is small in f32. */
  readonly precision: Precision;
  /** Of matrices that are not quantised, and of what is multiplied with them. */
  readonly float: FloatType;
  readonly steps: Steps;
  /** Whose emitters are asked first. */
  readonly kind: LoweringKind;
  /**
   * Names of operators that are plain ONNX all the same: the model is beyond their kernels' limits.
   */
  readonly plainOperators: ReadonlySet<string>;
  readonly state: StateSpec;
  /** i64 [B,T], or [1,S] in a ragged graph. */
  readonly tokenIds: Value;
  /**
   * i64 [B], of a ragged graph: sequences stand one after another in a batch of one. Otherwise all
   * have T steps.
   */
  readonly lengths: Value | undefined;
  readonly weight: (name: string) => WeightTensor;
  /** Of all operators so far. Appended to. */
  readonly used: OperatorUse[];
  readonly conversions: Conversions;
  /** What all layers share, by name: see `once`. */
  readonly shared: Map<string, unknown>;
}

/**
 * What an operator's kernel takes at most of something; beyond it the model's graphs have plain
 * ONNX in its place.
 */
export interface Limit {
  /** As in config.json, where it is there. */
  readonly name: string;
  readonly value: number;
  readonly most: number;
}

/** What was emitted of an operator: for `surveyOperators`. */
export interface OperatorUse {
  readonly name: string;
  readonly looksAlongTime: boolean;
  readonly isKernel: boolean;
  /** The first limit of its kernel that the model is beyond. */
  readonly beyond: Limit | undefined;
}

/** What has been made of operands, so that it is made once. */
export interface Conversions {
  readonly parts: Map<Value, Value[]>;
  readonly casts: Map<Value, Map<DataType, Value>>;
}

/**
 * Passes of one time step (decode) have a graph of their own, without a loop: T is 1 there, and
 * dynamic in the other.
 */
export type Steps = "one" | "many";

/**
 * What `build` emits and gives, the first time that a graph is asked for `name`; the same again
 * later.
 */
export function once<T>({ shared, graph }: Lowering, name: string, build: () => T): T {
  if (!shared.has(name)) shared.set(name, graph.scoped(name, build));
  return shared.get(name) as T;
}
