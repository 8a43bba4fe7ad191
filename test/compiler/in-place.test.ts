import { rmSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { assertInPlaceSafe } from "../../src/compiler/in-place.ts";
import { lower } from "../../src/compiler/lower.ts";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { Graph } from "../../src/onnx/graph.ts";
import { randomCheckpoint, TINY_SHAPE } from "../helpers/checkpoints.ts";

describe("every graph that the compiler writes", () => {
  it.each([0, 2])("may have its states updated in place (m = %s)", async (denseLayers) => {
    const modelDir = await randomCheckpoint({ ...TINY_SHAPE, denseLayers });
    const checkpoint = openCheckpoint(modelDir);
    for (const precision of ["f32", "int8"] as const) {
      for (const steps of ["one", "many"] as const) {
        const graph = lower(checkpoint, { precision }, steps);
        expect(graph.inputs.filter(({ value }) => value.name.startsWith("past_"))).toHaveLength(8);
        assertInPlaceSafe(graph);
      }
    }
    checkpoint.close();
    rmSync(modelDir, { recursive: true });
  });
});

describe("assertInPlaceSafe", () => {
  function graphWith(build: (g: Graph, past: ReturnType<Graph["input"]>) => void): Graph {
    const g = new Graph("states");
    build(g, g.input("past_h", "f32", [1]));
    return g;
  }

  it("accepts a reader that the writer waits for", () => {
    const graph = graphWith((g, past) => {
      const doubled = g.op("Add", [past, past]);
      g.output("present_h", g.op("Neg", [g.op("Exp", [doubled])]), "f32", [1]);
    });
    expect(() => assertInPlaceSafe(graph)).not.toThrow();
  });

  it("refuses a reader that may run after the writer", () => {
    const graph = graphWith((g, past) => {
      g.output("present_h", g.op("Neg", [past]), "f32", [1]);
      g.output("y", g.op("Exp", [past]), "f32", [1]);
    });
    expect(() => assertInPlaceSafe(graph)).toThrow(/Exp reads past_h but need not run before Neg/);
  });

  it("refuses one that reads through an alias", () => {
    const graph = graphWith((g, past) => {
      const alias = g.op("Identity", [past]);
      g.output("present_h", g.op("Neg", [alias]), "f32", [1]);
      g.output("y", g.op("Exp", [alias]), "f32", [1]);
    });
    expect(() => assertInPlaceSafe(graph)).toThrow(/Exp reads past_h/);
  });

  it("refuses one that reads from inside a body", () => {
    const graph = graphWith((g, past) => {
      g.output("present_h", g.op("Neg", [past]), "f32", [1]);
      const body = g.subgraph("body");
      body.output("inner", body.op("Exp", [past]), "f32", [1]);
      g.output("y", g.op("If", [g.input("c", "bool", [])], { then_branch: body, else_branch: body }), "f32", [1]);
    });
    expect(() => assertInPlaceSafe(graph)).toThrow(/If reads past_h/);
  });

  it("refuses a state that is never written", () => {
    expect(() => assertInPlaceSafe(graphWith(() => {}))).toThrow(/past_h has no present_h/);
  });
});
