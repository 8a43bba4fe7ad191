/**
 * A process that has only the native runner, collects garbage between its runs and during them, and
 * ends with 0. Started by native.test.ts: in the test's own process onnxruntime-node holds the
 * library too, and hides a lost handle.
 */
import { NativeRunner } from "../../src/runtime/native/native-runner.ts";

const collectGarbage = globalThis.gc!; // node --expose-gc
const runner = await NativeRunner.open({
  artifactDir: process.argv[2]!,
  numSlots: 2,
  numThreads: 1,
  device: "cpu",
  checked: true,
});
for (let numSteps = 1; numSteps <= 5; numSteps++) {
  await new Promise((resolve) => setTimeout(resolve, 1)); // finalizers run between turns
  collectGarbage();
  const tokenIds = new Int32Array(numSteps).fill(3);
  const running = runner.run({ firstSlot: 0, lengths: [numSteps], tokenIds, logitRows: [0], temperatures: [1] });
  collectGarbage();
  await running;
}
await runner.close();
