/** Once before the tests of CUDA: compiles what several of their files use. */
import { canEmulateCuda, emulatedKernels } from "../helpers/emulated-cuda.ts";
import { hasProvider, simulatedLibraries } from "./simulated-cuda.ts";

export default async function setUp(): Promise<void> {
  if (canEmulateCuda) await emulatedKernels();
  if (hasProvider) await simulatedLibraries();
}
