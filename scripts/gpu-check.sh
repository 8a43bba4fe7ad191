#!/usr/bin/env bash
# Everything that only a GPU can tell, in ten minutes at most: goldens, compute-sanitizer, speeds, flatness, what crosses the bus. The
# results go to .cache/gpu-check/result.json and into docs/gpu.md; the exit status is 1 if anything is not as it should be.
#
#   bash scripts/gpu-check.sh [--budget SECONDS] [--out FILE] [--page FILE] [--tiny]
#
# Needs a driver, Node (NODE=FILE if it is not on the PATH; before 22.18 with tsx in node_modules), node_modules, CUDA 13's libraries
# (where Python's packages are found by themselves, others by LD_LIBRARY_PATH), and either nvcc or a library of the operators that
# was built elsewhere (DENSEMAMBA_KERNEL_LIBRARY=FILE: `densemamba kernels --device cuda --out FILE`).
set -uo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "gpu-check: $1" >&2
  exit 2
}

first_of() {
  for file in "$@"; do
    if [ -n "$file" ] && command -v "$file" >/dev/null; then
      command -v "$file"
      return
    fi
  done
}

node=$(first_of "${NODE:-}" node) && [ -n "$node" ] || fail "there is no Node: NODE=FILE says where it is"
if ! "$node" -e 'const [major, minor] = process.versions.node.split(".").map(Number); process.exit(major > 22 || (major === 22 && minor >= 18) ? 0 : 1)'; then
  [ -f node_modules/tsx/dist/loader.mjs ] || fail "Node $("$node" --version) reads no TypeScript: 22.18 or later does, or tsx in node_modules"
  typescript=(--import tsx)
fi

# The packages nvidia-* have theirs in nvidia/cu13/lib.
libraries=$(python3 -c '
import os, sys
folders = [os.path.join(path, "nvidia", "cu13", "lib") for path in sys.path]
print(":".join(folder for folder in folders if os.path.isdir(folder)))' 2>/dev/null)
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}${LD_LIBRARY_PATH:+${libraries:+:}}$libraries"

bash test/cuda-device/fetch-provider.sh || fail "ONNX Runtime's CUDA provider is not in .cache/cuda-provider/ and cannot be fetched"
ort=$(ls .cache/cuda-provider/*/libonnxruntime.so.1 | tail -1)

cache=.cache/gpu-check
mkdir -p "$cache"
cc=$(first_of "${CC:-}" cc gcc clang)
if [ -n "$cc" ] && "$cc" -O1 -shared -fPIC bench/gpu/count-calls.c -o "$cache/count-calls.so" -ldl; then
  counter=(--counter "$PWD/$cache/count-calls.so")
fi
[ -n "${DENSEMAMBA_KERNEL_LIBRARY:-}" ] && kernels=(--kernels "$DENSEMAMBA_KERNEL_LIBRARY")
cuda=${CUDA_HOME:-/usr/local/cuda}
nvcc=$(first_of "$cuda/bin/nvcc" nvcc "${libraries%%:*}/../bin/nvcc")
sanitizer=$(first_of "$cuda/bin/compute-sanitizer" compute-sanitizer)
[ -n "$sanitizer" ] && sanitizing=(--sanitizer "$sanitizer")
gpu=$(nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null | head -1)

exec "$node" ${typescript[@]+"${typescript[@]}"} bench/gpu/check.ts --ort "$ort" --gpu "$gpu" --nvcc "${nvcc:-nvcc}" \
  ${kernels[@]+"${kernels[@]}"} ${counter[@]+"${counter[@]}"} ${sanitizing[@]+"${sanitizing[@]}"} "$@"
