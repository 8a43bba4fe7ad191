/**
 * How the operators in CUDA become a library: with nvcc for devices; with a C++ compiler for the
 * emulation that tests run on a CPU. The library of the CPU's operators is another
 * (kernel-build.ts, which runs the compiler).
 */

/** `cuda`: for NVIDIA's devices. `emulated`: the same kernels on a CPU, slowly. */
export type CudaTarget = "cuda" | "emulated";

export function isCuda(target: string): target is CudaTarget {
  return target === "cuda" || target === "emulated";
}

/**
 * Machine code for A100, H100, B200 and RTX 5090 and what runs their code (8.x, 9.x, 10.x, 12.x),
 * and PTX for all others from Turing on, which the driver translates at the first start.
 */
const ARCHITECTURES = [
  ...["80", "90", "100", "120"].flatMap((version) => ["-gencode", `arch=compute_${version},code=sm_${version}`]),
  ...["-gencode", "arch=compute_75,code=compute_75"],
];

/** Of C, compiled with the compiler behind nvcc. */
const SHARED_SOURCES = ["op.c", "register.c"];
const C_FLAGS = ["-std=gnu11", "-O3", "-fPIC", "-fvisibility=hidden", "-w"];
const CPP_FLAGS = ["-fPIC", "-fvisibility=hidden", "-w"];

/** What to compile, and what to link it with. */
export interface Recipe {
  /** Of the folders that hold the sources, below `sourceDir`. */
  readonly folders: readonly string[];
  readonly jobs: readonly Job[];
  readonly linkFlags: readonly string[];
}

interface Job {
  /** Below `sourceDir`. */
  readonly source: string;
  readonly object: string;
  readonly flags: readonly string[];
}

interface Toolchain {
  readonly c: readonly string[];
  readonly cuda: readonly string[];
  readonly link: readonly string[];
}

/**
 * nvcc hands on what follows -Xcompiler. CUDA's runtime is linked in, beside the provider's own:
 * docs/gpu.md, "Two CUDA runtimes".
 */
const TOOLCHAINS: Readonly<Record<CudaTarget, Toolchain>> = {
  cuda: {
    c: ["-DDM_CUDA", "-Xcompiler", C_FLAGS.join(",")],
    cuda: ["-std=c++20", "-O3", "-w", ...ARCHITECTURES, "-Xcompiler", CPP_FLAGS.join(",")],
    link: ["-shared", "-cudart", "static", "-Xcompiler", "-pthread", "-Xlinker", "-z,nodelete"],
  },
  emulated: {
    c: ["-x", "c", "-DDM_CUDA", "-DDM_CUDA_EMULATION", ...C_FLAGS],
    cuda: ["-x", "c++", "-std=gnu++20", "-O2", "-DDM_CUDA_EMULATION", ...CPP_FLAGS],
    link: ["-shared", "-pthread", "-lm", "-Wl,-z,nodelete"],
  },
};

/** `names`: the files of the folder `cuda`. */
export function cudaRecipe(target: CudaTarget, names: readonly string[]): Recipe {
  const { c, cuda, link } = TOOLCHAINS[target];
  const isa = `-DDM_ISA=${target}`;
  const jobs = [
    ...SHARED_SOURCES.map((source) => ({ source, object: `${source}.o`, flags: [...c] })),
    ...names
      .filter((name) => name.endsWith(".cu"))
      .map((name) => ({ source: `cuda/${name}`, object: `${name}.o`, flags: [...cuda, isa] })),
  ];
  return { folders: target === "cuda" ? [".", "cuda"] : [".", "cuda", "test"], jobs, linkFlags: link };
}
