"""The loss curve of a run as a picture: python plot.py RUN/log.jsonl [more logs] --out curve.svg"""
import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402


def smooth(values, window=40):
    out, mean = [], None
    for v in values:
        mean = v if mean is None else mean + (v - mean) / window
        out.append(mean)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("logs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    plt.rcParams["svg.hashsalt"] = "densemamba"
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    for log in args.logs:
        rows, name = [json.loads(line) for line in log.read_text().splitlines()], log.parent.name
        losses, checks = [r for r in rows if "loss" in r], [r for r in rows if "val_bpb" in r]
        left.plot([r["tokens"] / 1e6 for r in losses], smooth([r["loss"] for r in losses]), label=name)
        right.plot([r["tokens"] / 1e6 for r in checks], [r["val_bpb_average"] for r in checks], "o-", markersize=3, label=f"{name}, averaged weights")
        right.plot([r["tokens"] / 1e6 for r in checks], [r["val_bpb"] for r in checks], ":", color=right.lines[-1].get_color(), label=f"{name}, last weights")
    left.set(xlabel="million tokens", ylabel="training loss, nats a token (smoothed)")
    right.set(xlabel="million tokens", ylabel="validation, bits per byte")
    right.legend(frameon=False, fontsize=8)
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(args.out, metadata={"Date": None})


if __name__ == "__main__":
    main()
