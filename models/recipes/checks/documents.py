"""For every architecture: documents packed back to back and read in pieces give what each document gives alone, in one go."""
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import architectures  # noqa: E402

SIZES = {"vocab": 64, "hidden": 32, "layers": 3}
PIECE, LENGTHS = 24, [[20, 9, 15, 4], [13, 11, 24], [24, 24]]  # rows of documents, 48 tokens each


@torch.no_grad()
def main():
    for name in architectures.NAMES:
        torch.manual_seed(0)
        extra = {"heads": 4, "key": 32} if "retnet" in name else {"state": 8, "rank": 4} if "mamba" in name else {}
        model = architectures.create(name, {**SIZES, **extra})
        if "mamba" in name:
            model.half = False
        for p in model.parameters():
            if p.abs().max() == 0:
                torch.nn.init.normal_(p, std=0.2)
        tokens = torch.randint(64, (len(LENGTHS), 48))
        pos = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in LENGTHS]).int()
        state, pieces = model.zero_state(len(LENGTHS)), []
        for i in range(0, 48, PIECE):
            hidden, state = model(tokens[:, i: i + PIECE].contiguous(), pos[:, i: i + PIECE].contiguous(), state)
            pieces.append(hidden)
        packed, worst = torch.cat(pieces, 1), 0.0
        for row, lengths in enumerate(LENGTHS):
            start = 0
            for n in lengths:
                alone, _ = model(tokens[row: row + 1, start: start + n].contiguous(), torch.arange(n)[None].int(), model.zero_state(1))
                worst = max(worst, (alone[0] - packed[row, start: start + n]).abs().max().item())
                start += n
        print(f"{name}: worst difference {worst:.1e}")
        assert worst < 1e-4


if __name__ == "__main__":
    main()
