/**
 * The same function with other weights, which lose less by rounding. A norm's weight may be
 * multiplied by anything, channel by channel, if the columns of the matrices that read the norm are
 * divided by it. In f32 that changes nothing; in eight bits a block's scale follows its largest
 * number, and a few large channels leave nothing of the others. docs/compiler.md, "Channels of
 * unequal size"
 */
import type { Precision } from "../model/artifact.ts";
import type { Checkpoint } from "../model/checkpoint.ts";
import { type MambaConfig, mixer } from "../model/families/mamba.ts";
import type { Mamba2Config } from "../model/families/mamba2.ts";
import { attention, type RetNetConfig } from "../model/families/retnet.ts";
import { channelMix, type Rwkv7Config, timeMix } from "../model/families/rwkv7.ts";
import { readAll, type WeightTensor } from "../model/weights.ts";
import { matrix, rowChunks } from "./matrix.ts";

/** Tensors by their names without `.weight`. */
interface Group {
  readonly norm: string;
  /**
   * The matrices that read what the norm gives; nothing else does. Of a norm for each head its
   * channels repeat.
   */
  readonly readers: readonly string[];
  /**
   * The matrices that make up the residual stream that the norm reads, an embedding first; none
   * where it reads something else.
   */
  readonly writers: readonly string[];
  /** How much of a channel's size the norm's weight gets; the columns get the rest. */
  readonly normShare: number;
}

/**
 * Eight bits of a weight and eight of an input are worth the same. Four bits of a weight are not:
 * their columns are made equal, and the inputs take it all.
 */
const NORM_SHARE = { int8: 1 / 2, int4: 1 } as const;

export function equalised(checkpoint: Checkpoint, precision: Precision): Checkpoint {
  if (precision !== "int8" && precision !== "int4") return checkpoint;
  const profiles = new Map<string, Float64Array>();
  const profile = (writer: string, index: number) => {
    const known =
      profiles.get(writer) ?? profileOf(checkpoint.tensor(`${writer}.weight`), index === 0 ? "columns" : "rows");
    profiles.set(writer, known);
    return known;
  };
  const tensors = new Map<string, WeightTensor>();
  for (const group of groupsOf(checkpoint, NORM_SHARE[precision])) {
    const norm = checkpoint.tensor(`${group.norm}.weight`);
    const readers = group.readers.map((name) => checkpoint.tensor(`${name}.weight`));
    let found: Float32Array | undefined;
    const factors = () => {
      found ??= findFactors(norm, readers, rootMean(group.writers.map(profile)), group.normShare);
      return found;
    };
    tensors.set(
      `${group.norm}.weight`,
      mapped(norm, factors, (value, factor) => value * factor),
    );
    const bias = `${group.norm}.bias`;
    if (checkpoint.tensors.some(({ name }) => name === bias)) {
      tensors.set(
        bias,
        mapped(checkpoint.tensor(bias), factors, (value, factor) => value * factor),
      );
    }
    for (const [i, reader] of readers.entries()) {
      tensors.set(
        `${group.readers[i]}.weight`,
        mapped(reader, factors, (value, factor) => value / factor),
      );
    }
  }
  return { ...checkpoint, tensor: (name) => tensors.get(name) ?? checkpoint.tensor(name) };
}

function groupsOf({ architecture }: Checkpoint, normShare: number): Group[] {
  switch (architecture.kind) {
    case "mamba":
      return mambaGroups(architecture, normShare);
    case "retnet":
      return retNetGroups(architecture, normShare);
    case "mamba2":
      return mamba2Groups(architecture, normShare);
    case "rwkv7":
      return rwkv7Groups(architecture, normShare);
  }
}

function mambaGroups({ gates, embedding, tieEmbeddings }: MambaConfig, normShare: number): Group[] {
  const writers = [embedding, ...gates.map((_, layer) => `${mixer(layer)}.out_proj`)];
  const layers = gates.map(
    (gate, layer): Group => ({
      norm: `backbone.layers.${layer}.norm`,
      readers: ["in_proj", ...(gate ? ["select.fc1"] : [])].map((name) => `${mixer(layer)}.${name}`),
      writers: writers.slice(0, layer + 1),
      normShare,
    }),
  );
  return layers.concat(tieEmbeddings ? [] : headGroup("backbone.norm_f", writers));
}

function mamba2Groups({ numLayers, tieEmbeddings }: Mamba2Config, normShare: number): Group[] {
  const mixers = Array.from({ length: numLayers }, (_, layer) => mixer(layer));
  const writers = ["backbone.embeddings", ...mixers.map((name) => `${name}.out_proj`)];
  const layers = mixers.flatMap((name, layer): Group[] => [
    {
      norm: `backbone.layers.${layer}.norm`,
      readers: [`${name}.in_proj`],
      writers: writers.slice(0, layer + 1),
      normShare,
    },
    { norm: `${name}.norm`, readers: [`${name}.out_proj`], writers: [], normShare },
  ]);
  return layers.concat(tieEmbeddings ? [] : headGroup("backbone.norm_f", writers));
}

function retNetGroups({ gates, tieEmbeddings }: RetNetConfig, normShare: number): Group[] {
  const writers = ["model.embed_tokens", ...gates.map((_, layer) => `${attention(layer)}.to_out.0`)];
  const layers = gates.flatMap((gate, layer): Group[] => {
    const readers = ["q_proj", "k_proj", "to_hidden.0", ...(gate ? ["k_select.fc1", "v_select.fc1"] : [])];
    const name = attention(layer);
    return [
      {
        norm: `model.layers.${layer}.input_layernorm`,
        readers: readers.map((reader) => `${name}.${reader}`),
        writers: writers.slice(0, layer + 1),
        normShare,
      },
      { norm: `${name}.group_norm`, readers: [`${name}.to_out.0`], writers: [], normShare },
    ];
  });
  return layers.concat(tieEmbeddings ? [] : headGroup("model.norm", writers));
}

/**
 * Between norm and matrices each channel is mixed with its own last value, which its factor passes
 * through.
 */
function rwkv7Groups({ numLayers }: Rwkv7Config, normShare: number): Group[] {
  const layers = Array.from({ length: numLayers }, (_, layer): Group[] => {
    const pairs = layer === 0 ? ["w", "a", "g"] : ["w", "a", "g", "v"];
    const readers = ["r_proj", "k_proj", "v_proj", ...pairs.map((which) => `${which}_lora.lora.0`)];
    const group = (norm: string, names: readonly string[]): Group => {
      return { norm: `model.layers.${layer}.${norm}`, readers: names, writers: [], normShare };
    };
    return [
      group(
        "attn_norm",
        readers.map((name) => `${timeMix(layer)}.${name}`),
      ),
      group("ffn_norm", [`${channelMix(layer)}.key`]),
    ];
  });
  return layers.flat().concat(headGroup("model.norm", []));
}

/**
 * Of a head of its own: a tied one is the embedding too, which is read without a norm. It has eight
 * bits always.
 */
function headGroup(norm: string, writers: readonly string[]): Group {
  return { norm, readers: ["lm_head"], writers, normShare: NORM_SHARE.int8 };
}

/**
 * Powers of two, so that nothing is rounded. A channel's part of a row is (a g w)² of the row's
 * sum, with a the channel's size in the residual stream, as far as weights tell: neither the rows'
 * sizes nor the way that norm and columns are written in changes it. What the channel's parts add
 * up to, s², is what is shared out: the norm's result becomes s^normShare, the columns the rest.
 */
function findFactors(
  norm: WeightTensor,
  readers: readonly WeightTensor[],
  streamSizes: Float64Array | undefined,
  normShare: number,
): Float32Array {
  const gains = readAll(norm);
  const sizes = Float64Array.from(gains, (gain, i) => Math.abs(gain) * (streamSizes?.[i] ?? 1));
  const parts = new Float64Array(gains.length);
  for (const reader of readers.map(matrix)) {
    for (const rows of rowChunks(reader)) {
      for (let row = 0; row < rows.length; row += reader.numColumns) {
        addParts(rows.subarray(row, row + reader.numColumns), sizes, parts);
      }
    }
  }
  return gains.map((_, i) => {
    const exponent = Math.round(Math.log2(parts[i]! ** (normShare / 2) / sizes[i]!));
    return Number.isFinite(exponent) ? 2 ** Math.max(-MAX_EXPONENT, Math.min(exponent, MAX_EXPONENT)) : 1;
  });
}

/** Further apart channels are not in anything but a test, and f32 ends. */
const MAX_EXPONENT = 40;

function addParts(row: Float32Array, sizes: Float64Array, parts: Float64Array): void {
  let sum = 0;
  for (let i = 0; i < row.length; i++) sum += (row[i]! * sizes[i % sizes.length]!) ** 2;
  if (sum === 0) return;
  for (let i = 0; i < row.length; i++) parts[i % sizes.length]! += (row[i]! * sizes[i % sizes.length]!) ** 2 / sum;
}

/**
 * What each channel has of a matrix's squares, 1 on average. Channels are the columns of an
 * embedding [V,D], the rows of a projection.
 */
function profileOf(weight: WeightTensor, channels: "rows" | "columns"): Float64Array {
  const source = matrix(weight);
  const { numRows, numColumns } = source;
  const squares = new Float64Array(channels === "rows" ? numRows : numColumns);
  let row = 0;
  for (const rows of rowChunks(source)) {
    for (let start = 0; start < rows.length; start += numColumns, row++) {
      for (let column = 0; column < numColumns; column++) {
        squares[channels === "rows" ? row : column]! += rows[start + column]! ** 2;
      }
    }
  }
  const mean = squares.reduce((a, b) => a + b, 0) / squares.length;
  return mean === 0 ? squares.fill(1) : squares.map((square) => square / mean);
}

/** undefined of none. */
function rootMean(profiles: readonly Float64Array[]): Float64Array | undefined {
  return profiles[0]?.map((_, i) =>
    Math.sqrt(profiles.reduce((sum, profile) => sum + profile[i]!, 0) / profiles.length),
  );
}

/** Each element with the factor of its column. */
function mapped(
  tensor: WeightTensor,
  factors: () => Float32Array,
  change: (value: number, factor: number) => number,
): WeightTensor {
  return {
    ...tensor,
    read(start, count) {
      const all = factors();
      return tensor.read(start, count).map((value, i) => change(value, all[(start + i) % all.length]!));
    },
  };
}
