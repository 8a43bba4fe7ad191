#!/usr/bin/env bash
# Fetches ONNX Runtime's CUDA provider out of PyPI's wheel, pinned by its hash, and puts it beside a copy of onnxruntime-node's own
# library, which is of the same commit: .cache/cuda-provider/. Nothing to do if it is there.
#
#   bash test/cuda-device/fetch-provider.sh      # 0: there; 3: the registry cannot be reached; 1: anything else
set -uo pipefail
cd "$(dirname "$0")/../.."

# As the CUDA image has it.
pin=$(grep '^onnxruntime-gpu==' docker/cuda-libraries.txt)
version=$(sed -E 's/^[^=]*==([0-9.]+) .*/\1/' <<<"$pin")
folder=.cache/cuda-provider/$version
[ -f "$folder/complete" ] && exit 0

mkdir -p "$(dirname "$folder")"
# Beside its final place, so that it gets its name whole, in one step.
partial=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$partial"' EXIT
echo "$pin" >"$partial/requirements.txt"
if ! python3 -m pip download --quiet --no-deps --require-hashes --only-binary=:all: --python-version 3.11 --implementation cp \
  --abi cp311 --platform manylinux_2_28_x86_64 --dest "$partial" --requirement "$partial/requirements.txt" 2>"$partial/errors"; then
  cat "$partial/errors" >&2
  # pip gives up on a registry that does not answer as if it knew no version at all.
  grep -qiE 'from versions: none|connection|timed out|resolution' "$partial/errors" && exit 3
  exit 1
fi
python3 - "$partial" <<'PYTHON' || exit 1
import glob, os, shutil, sys, zipfile
[wheel] = glob.glob(os.path.join(sys.argv[1], "*.whl"))
with zipfile.ZipFile(wheel) as archive:
    for name in ("libonnxruntime_providers_cuda.so", "libonnxruntime_providers_shared.so"):
        with archive.open("onnxruntime/capi/" + name) as source, open(os.path.join(sys.argv[1], name), "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
os.remove(wheel)
PYTHON
cp node_modules/onnxruntime-node/bin/napi-v6/linux/x64/libonnxruntime.so.1 "$partial/" && touch "$partial/complete" || exit 1
rm -rf "$folder" && mv "$partial" "$folder"
