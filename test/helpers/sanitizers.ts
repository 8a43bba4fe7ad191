/**
 * Flags of GCC or Clang for AddressSanitizer and UBSan, which compile the kernels in a third of the
 * time.
 */
import { spawnSync } from "node:child_process";

/** @param compiler its command */
export function sanitizerFlags(compiler: string): readonly string[] {
  const { stdout } = spawnSync(compiler, ["--version"], { encoding: "utf8", timeout: 60_000 });
  const isGcc = stdout?.includes("Free Software Foundation") === true;
  return [
    ...["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    // AddressSanitizer checks pointers at their use: checking them before takes half of the
    // compiler's time.
    "-fno-sanitize=null,pointer-overflow",
    // Checks as calls. Clang has another option for it.
    ...(isGcc ? ["--param", "asan-instrumentation-with-call-threshold=0"] : []),
  ];
}
