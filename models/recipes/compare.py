"""Do dense hidden connections help at equal size? The same recipe, data and tokens for every architecture and ablation.

  python compare.py --data FOLDER --out FOLDER [--tokens 2e6] [--seeds 3] [--only NAME ...] [--report]

Each run is train.py with a falling learning rate; finished runs are kept, so the command can be stopped and given again.
One free width of each model is chosen so that all have the parameters of DenseMamba (m = 2) to within 2%. Writes
comparison.md and comparison.svg from whatever has finished.
"""
import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import architectures

BASE = {"vocab": 4096, "hidden": 128, "layers": 4}
RETNET = {**BASE, "key": 64, "heads": 2, "k_select": 16, "v_select": 16}
RUNS = {  # name -> architecture, sizes, the width that is fitted, its step
    "DenseMamba m=2": ("dense_mamba", BASE, "inner", 8),
    "Mamba (m=0)": ("mamba", BASE, "inner", 8),
    "DenseMamba m=1": ("dense_mamba", {**BASE, "m": 1}, "inner", 8),
    "DenseMamba m=4": ("dense_mamba", {**BASE, "m": 4}, "inner", 8),
    "m=2, gate without MLP": ("dense_mamba", {**BASE, "gate": "linear"}, "inner", 8),
    "m=2, static gate": ("dense_mamba", {**BASE, "gate": "static"}, "inner", 8),
    "m=2, learned projection": ("dense_mamba", {**BASE, "project": True}, "inner", 8),
    "DenseRetNet m=2": ("dense_retnet", RETNET, "value", 16),
    "RetNet (m=0)": ("retnet", RETNET, "value", 16),
    "Transformer": ("transformer", BASE, "ffn", 8),
}
REFERENCE = "DenseMamba m=2"


def count(arch, size):
    return sum(p.numel() for p in architectures.create(arch, size).parameters())


def fit(name):
    """The sizes of a run with its free width chosen to meet the reference's number of parameters."""
    arch, size, free, step = RUNS[name]
    target = count(RUNS[REFERENCE][0], BASE)
    best = min(range(step, 1025, step), key=lambda width: abs(count(arch, {**size, free: width}) - target))
    fitted = {**size, free: best}
    assert abs(count(arch, fitted) / target - 1) < 0.02, f"{name} cannot be brought within 2% of {target} parameters"
    return arch, fitted, count(arch, fitted)


def run(name, seed, args):
    arch, size, _ = fit(name)
    folder = args.out / f"{name}, seed {seed}".replace(" ", "_")
    log = folder / "log.jsonl"
    if not (log.exists() and any(json.loads(r).get("tokens", 0) >= args.tokens and "val_bpb" in r for r in log.read_text().splitlines())):
        mix = {"stories": 0.3, "tales": 0.7}
        subprocess.run([sys.executable, "train.py", "--data", args.data, "--run", folder, "--arch", arch, "--size", json.dumps(size),
                        "--mix", json.dumps(mix), "--tokens", str(args.tokens), "--cool", str(args.tokens * 0.4), "--seed", str(seed),
                        "--muon-lr", str(args.muon_lr), "--dropout", "0", "--decay", "0.01", "--warmup", "40", "--eval-every", "1000", "--save-every", "3"], check=True, cwd=Path(__file__).parent)
        (folder / "last.pt").unlink()


def results(args):
    """name -> final validation bits per byte of each finished seed (the last weights: the learning rate has reached zero)."""
    found = {}
    for name in RUNS:
        for seed in range(args.seeds):
            log = args.out / f"{name}, seed {seed}".replace(" ", "_") / "log.jsonl"
            rows = [json.loads(r) for r in log.read_text().splitlines()] if log.exists() else []
            final = [r["val_bpb"] for r in rows if "val_bpb" in r and r["tokens"] >= args.tokens]
            if final:
                found.setdefault(name, []).append(final[-1])
    return found


def report(args):
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    found = results(args)
    spread = {n: statistics.stdev(v) if len(v) > 1 else 0.0 for n, v in found.items()}
    lines = [f"{args.tokens / 1e6:.1f} million tokens a run, the same for all; validation in bits per byte, lower is better.", "",
             "| model | parameters | seeds | mean | standard deviation |", "|---|---|---|---|---|"]
    lines += [f"| {n} | {fit(n)[2]:,} | {len(v)} | {statistics.mean(v):.4f} | {spread[n]:.4f} |" for n, v in found.items()]
    (args.out / "comparison.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    figure, axis = plt.subplots(figsize=(7, 0.4 * len(found) + 1))
    names = list(found)[::-1]
    axis.errorbar([statistics.mean(found[n]) for n in names], names, xerr=[spread[n] for n in names], fmt="o", capsize=3)
    for n in names:
        axis.plot(found[n], [n] * len(found[n]), "|", color="gray")
    axis.set(xlabel="validation, bits per byte (bars: standard deviation over seeds)")
    axis.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    figure.savefig(args.out / "comparison.svg", metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokens", type=float, default=2e6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--only", nargs="*", choices=list(RUNS))
    parser.add_argument("--report", action="store_true", help="no training, only the table and the picture")
    args = parser.parse_args()
    args.data, args.out = args.data.resolve(), args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    for seed in range(0 if args.report else args.seeds):
        for name in args.only or RUNS:
            run(name, seed, args)
    report(args)


if __name__ == "__main__":
    main()
