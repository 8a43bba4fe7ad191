/** What `inspect` shows of layers: made-up ones and those of checkpoints. */
import { rm } from "node:fs/promises";
import { expect, it } from "vitest";
import { describeLayers, drawLinks, layerTable } from "../../src/cli/inspect.ts";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { numElements, stateBytes } from "../../src/model/state.ts";
import { randomCheckpoint, TINY_RETNET, TINY_SHAPE } from "../helpers/checkpoints.ts";

it("draws each layer on the diagonal, with a line from the layers that it reads", () => {
  const layers = describeLayers({ numLayers: 4, denseLayers: 2 }, [], []);
  expect(drawLinks(layers)).toBe(["    0  ●\n", "    1  ○─●\n", "    2  ○─○─●\n", "    3    ○─○─●\n"].join(""));
});

it("counts a layer's state and parameters, a column for each block", () => {
  const state = [
    { name: "conv.0", shape: [3, 64] },
    { name: "ssm.0", shape: [16, 64] },
    { name: "conv.1", shape: [3, 64] },
    { name: "shared", shape: [1] },
  ];
  const tensors = [
    { name: "backbone.layers.0.norm.weight", shape: [1000] },
    { name: "backbone.layers.0.mixer.in_proj.weight", shape: [2000, 1000] },
    { name: "backbone.layers.0.mixer.in_proj.bias", shape: [2000] },
    { name: "backbone.layers.1.mixer.select.fc1.weight", shape: [10, 5] },
    { name: "backbone.layers.1.mixer.select.fc2.weight", shape: [5, 10] },
    { name: "backbone.norm_f.weight", shape: [7] },
  ];
  const layers = describeLayers({ numLayers: 2, denseLayers: 1 }, state, tensors);
  expect(layerTable(layers).split("\n")).toEqual([
    "layer     state  parameters  norm  in_proj  select",
    "    0  4.75 KiB          2M    1k       2M       –",
    "    1     768 B         100     –        –     100",
    "",
  ]);
  expect(layerTable(describeLayers({ numLayers: 1, denseLayers: 0 }, state, []))).toBe(
    "layer     state\n    0  4.75 KiB\n",
  );
});

it.each([
  ["DenseMamba", TINY_SHAPE],
  ["DenseRetNet", TINY_RETNET],
])("gives every tensor and state of a %s to one layer, except those outside of all", async (_, shape) => {
  const modelDir = await randomCheckpoint(shape);
  const { sizes, state, tensors, numParameters, close } = openCheckpoint(modelDir);
  close();
  const layers = describeLayers(sizes, state, tensors);
  const outside = tensors.filter(({ name }) => !name.includes(".layers."));
  const count = (list: typeof tensors) => list.reduce((sum, tensor) => sum + numElements(tensor.shape), 0);
  const held = layers.flatMap(({ blocks }) => [...blocks.values()]).reduce((a, b) => a + b, 0);
  expect(held).toBe(numParameters - count(outside));
  const shared = state.filter(({ name }) => !name.includes("."));
  expect(layers.reduce((sum, layer) => sum + layer.stateBytes, 0)).toBe(stateBytes(state) - stateBytes(shared));
  expect(layers.map(({ reads }) => reads)).toEqual([[], [0], [1, 0], [2, 1]]);
  await rm(modelDir, { recursive: true });
});
