"""Bits per byte of whole stories, the state carried from the first token to the last.

  python evaluate.py CHECKPOINT.pt --data FOLDER
"""
import argparse
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from tokenizers import Tokenizer

STEPS = 256


def pack(sequences, rows):
    """Lists of token ids, longest first, each put into the row that is shortest so far."""
    packed = [[] for _ in range(rows)]
    for ids in sorted(sequences, key=len, reverse=True):
        min(packed, key=lambda row: sum(map(len, row))).append(ids)
    return [row for row in packed if row]


def batches(packed):
    """tokens, targets, pos, weight [rows,STEPS]; weight 0 where there is nothing to predict."""
    columns = []
    for row in packed:
        tokens = [t for ids in row for t in ids[:-1]]
        columns.append((tokens, [t for ids in row for t in ids[1:]], [p for ids in row for p in range(len(ids) - 1)], [1.0] * len(tokens)))
    length = max(len(c[0]) for c in columns)
    length += -length % STEPS
    padded = [[list(x) + [0] * (length - len(x)) for x in column] for column in zip(*columns)]
    tokens, targets, pos = (torch.tensor(x, dtype=torch.int32) for x in padded[:3])
    weight = torch.tensor(padded[3])
    for i in range(0, length, STEPS):
        yield tuple(x[:, i: i + STEPS].contiguous() for x in (tokens, targets, pos, weight))


@torch.no_grad()
def total_nats(model, packed):
    state, nats, device = model.zero_state(len(packed)), 0.0, next(model.parameters()).device
    for batch in batches(packed):
        tokens, targets, pos, weight = (x.to(device) for x in batch)
        hidden, state = model(tokens.long(), pos, state)
        nats += model.loss(hidden, targets, weight)[0].item()
    return nats


def bits_per_byte(model, texts, tokenizer, threads=2):
    packed = pack([e.ids for e in tokenizer.encode_batch(texts)], rows=4 * threads)
    shares = [packed[i::threads] for i in range(threads)]
    model.eval()
    with ThreadPoolExecutor(threads) as pool:
        nats = sum(pool.map(lambda share: total_nats(model, share), shares))
    model.train()
    return nats / math.log(2) / sum(len(t.encode()) for t in texts)


def main():
    from train import load_model
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--raw", action="store_true", help="the weights themselves, not their average")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, saved = load_model(args.checkpoint, average=not args.raw)
    tokenizer = Tokenizer.from_file(str(args.data / "tokenizer.json"))
    for name, texts in json.loads((args.data / "validation.json").read_text()).items():
        bpb = bits_per_byte(model, texts, tokenizer, os.cpu_count())
        size, count = sum(len(t.encode()) for t in texts), sum(len(e.ids) - 1 for e in tokenizer.encode_batch(texts))
        print(f"{name}: {bpb:.4f} bits per byte, {bpb * size / count:.4f} bits per token, {len(texts)} documents, after {saved['tokens']:,} tokens")


if __name__ == "__main__":
    main()
