"""Which size, vocabulary, rate and mix for the default model? Short runs that differ from it in one thing each.

  python choose.py --corpus FOLDER --out FOLDER [--megabytes 6] [--only NAME ...] [--report]

All read the same number of bytes of text, whatever their vocabulary makes of them, and the rate falls to zero over the last 40%.
Finished runs are kept, so the command can be stopped and given again. Writes choices.md from whatever has finished.
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

import architectures
from train import MIX

BASE, VOCAB, RATE = {"vocab": 4096, "hidden": 256}, 4096, 0.02
TALES_ONLY = {"stories": 0.3, "tales": 0.7}
WITH_MADE = {**{name: share * 0.7 for name, share in MIX.items()}, "made": 0.2, "told": 0.05, "talk": 0.05}
RUNS = {  # name -> sizes that differ, Muon's rate, mix
    "the default: 256 wide, 7 layers, 4,096 pieces, rate 0.02": ({}, RATE, MIX),
    "192 wide": ({"hidden": 192}, RATE, MIX),
    "384 wide": ({"hidden": 384}, RATE, MIX),
    "4 layers": ({"layers": 4}, RATE, MIX),
    "12 layers": ({"layers": 12}, RATE, MIX),
    "2,048 pieces": ({"vocab": 2048}, RATE, MIX),
    "8,192 pieces": ({"vocab": 8192}, RATE, MIX),
    "rate 0.01": ({}, 0.01, MIX),
    "rate 0.04": ({}, 0.04, MIX),
    "stories and tales alone": ({}, RATE, TALES_ONLY),
    "three tenths made text": ({}, RATE, WITH_MADE),
}


def data_for(vocab, args):
    """The folder of token arrays in a vocabulary of this size, made where it is not there."""
    folder = args.out / f"data-{vocab}"
    if not (folder / "validation.json").exists():
        subprocess.run([sys.executable, "prepare.py", "--corpus", args.corpus, "--out", folder, "--vocab", str(vocab)], check=True, cwd=Path(__file__).parent)
    return folder


def bytes_per_token(folder, mix):
    """Of the training text in its mix, from the first tokens of each source."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    total = 0
    for name, share in mix.items():
        tokens = np.load(folder / f"{name}.npz")["tokens"][:200_000].tolist()
        total += share * len(tokenizer.decode(tokens, skip_special_tokens=False).encode()) / len(tokens)
    return total / sum(mix.values())


def finished(folder):
    """Validation in bits per byte, by the last weights, of a run that has ended; None of another."""
    log = folder / "log.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    ended = [row["val_bpb"] for row in rows if "val_bpb" in row and not (folder / "last.pt").exists()]
    return ended[-1] if ended else None


def folder_of(name, args):
    return args.out / name.split(":")[0].replace(" ", "_").replace(",", "")


def run(name, args):
    size, rate, mix = RUNS[name]
    folder = folder_of(name, args)
    if finished(folder) is not None:
        return
    data = data_for(size.get("vocab", VOCAB), args)
    tokens = args.megabytes * 1e6 / bytes_per_token(data, mix)
    subprocess.run([sys.executable, "train.py", "--data", data, "--run", folder, "--size", json.dumps({**BASE, **size}), "--mix", json.dumps(mix),
                    "--muon-lr", str(rate), "--tokens", str(tokens), "--cool", str(tokens * 0.4), "--eval-every", "1000", "--save-every", "3"],
                   check=True, cwd=Path(__file__).parent)
    if "val_bpb" not in (folder / "log.jsonl").read_text().splitlines()[-1]:
        raise SystemExit(f"{name} was stopped; the same command goes on from there")
    (folder / "last.pt").unlink()


def report(args):
    lines = [f"{args.megabytes:g} million bytes of text a run; validation in bits per byte, lower is better.", "",
             "| run | parameters | validation |", "|---|---|---|"]
    for name, (size, _, _) in RUNS.items():
        result = finished(folder_of(name, args))
        if result is not None:
            parameters = sum(p.numel() for p in architectures.create("dense_mamba", {**BASE, **size}).parameters())
            lines.append(f"| {name} | {parameters / 1e6:.2f}M | {result:.3f} |")
    (args.out / "choices.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--megabytes", type=float, default=6, help="of training text that each run reads")
    parser.add_argument("--only", nargs="*", choices=list(RUNS))
    parser.add_argument("--report", action="store_true", help="no training, only the table")
    args = parser.parse_args()
    args.corpus, args.out = args.corpus.resolve(), args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in [] if args.report else args.only or RUNS:
        run(name, args)
    report(args)


if __name__ == "__main__":
    main()
