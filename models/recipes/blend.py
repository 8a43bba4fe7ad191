"""One model out of several checkpoints of the same run: the mean of their averaged weights.

  python blend.py CHECKPOINT.pt CHECKPOINT.pt ... --out FILE.pt

Checkpoints must share a beginning: weights of runs that began apart do not average (Wortsman et al., arXiv 2203.05482).
One that is named twice counts twice.
"""
import argparse
from pathlib import Path

import torch


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    saved = [torch.load(path, map_location="cpu") for path in args.checkpoints]
    latest = max(saved, key=lambda checkpoint: checkpoint["tokens"])
    for path, checkpoint in zip(args.checkpoints, saved):
        if (checkpoint["arch"], checkpoint["size"]) != (latest["arch"], latest["size"]):
            raise SystemExit(f"{path} is another model: {checkpoint['arch']} {checkpoint['size']}, not {latest['arch']} {latest['size']}")
    average = {name: sum(checkpoint["average"][name].float() for checkpoint in saved) / len(saved) for name in latest["average"]}
    kept = {name: latest[name] for name in ("arch", "size", "tokens", "seconds", "mix")}
    torch.save({**kept, "model": average, "average": average}, args.out)
    print(f"{args.out}: {len(saved)} checkpoints, the latest after {latest['tokens']:,} tokens")


if __name__ == "__main__":
    main()
