/**
 * Where ONNX Runtime's real CUDA provider puts the nodes of our graphs: on the device, all of them
 * (test/cuda-device/).
 */
import { describe, expect, it } from "vitest";
import { PRECISIONS } from "../../src/model/artifact.ts";
import { onSimulatedCuda } from "../cuda-device/harness.ts";
import { hasProvider } from "../cuda-device/simulated-cuda.ts";
import { readGoldens } from "../helpers/goldens.ts";
import { TINY_MODELS, withCheckpoints } from "../helpers/tiny-models.ts";

const ON_DEVICE = { "session.disable_cpu_ep_fallback": "1" };
const LOWERINGS = ["cuda", "plain"] as const;
/** Whose graphs differ from those of the random checkpoints. */
const GOLDENS = ["torch-tiny-shared-gate", "hf-tiny-falcon-mamba", "dense-retnet-hub"];

const sources = await withCheckpoints(TINY_MODELS);

describe.runIf(hasProvider)("ONNX Runtime's CUDA provider", () => {
  const harness = onSimulatedCuda();
  const goldens = readGoldens({ torch: 0, transformers: 0, retnet: 0 }).filter(({ name }) => GOLDENS.includes(name));
  const graphs = [...sources, ...goldens].flatMap(({ name, modelDir }) =>
    LOWERINGS.flatMap((lowering) => PRECISIONS.map((precision) => ({ name, modelDir, precision, lowering }))),
  );

  it("has the goldens of other graphs", () => expect(goldens).toHaveLength(GOLDENS.length));

  it.each(graphs)("has every node of a $name in $precision, lowered to $lowering, on the device", async (graph) => {
    const { modelDir, precision, lowering } = graph;
    const { runner, notes } = await harness.open(modelDir, { precision, lowering, sessionConfig: ON_DEVICE });
    await runner.close();
    expect(notes).toEqual([]);
  });

  const runnable = sources.flatMap((source) => LOWERINGS.map((lowering) => ({ ...source, lowering })));

  it.each(runnable)(
    "takes a longer prompt of a $name, lowered to $lowering, over the bus in as many copies",
    async ({ modelDir, lowering }) => {
      const { cuda } = harness;
      const { runner } = await harness.open(modelDir, { lowering });
      const copies = async (numTokens: number) => {
        cuda.reset();
        const tokenIds = Array.from({ length: numTokens }, (_, i) => i);
        await runner.run({ firstSlot: 0, lengths: [numTokens], tokenIds, logitRows: [0], temperatures: [1] });
        const { "device to device": _, ...crossing } = cuda.book().copies;
        return crossing;
      };
      // A node on the CPU, of a loop's body too, would copy at each step.
      expect(await copies(24)).toEqual(await copies(12));
    },
  );
});
