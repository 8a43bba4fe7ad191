"""Batches that follow documents: each row of the batch reads one document after another, piece by piece.

Row b of the next batch goes on where row b of this one stopped, so the trainer can carry the states across; `pos` is the place
in the document and 0 at each start. Everything a resumed run needs is in `state_dict`.
"""
import random
from pathlib import Path

import numpy as np
import torch


class Source:
    """Documents of one source in random order, each once per epoch."""

    def __init__(self, path):
        data = np.load(path)
        self.tokens, self.starts = data["tokens"], data["starts"]
        self.order, self.epochs = [], 0

    def next(self, rng):
        if not self.order:
            self.order = list(range(len(self.starts) - 1))
            rng.shuffle(self.order)
            self.epochs += 1
        return self.order.pop()

    def document(self, i):
        return self.tokens[self.starts[i]: self.starts[i + 1]]


class Stream:
    def __init__(self, folder, mix, rows, steps, seed=0):
        """mix: source name -> share of the training tokens."""
        self.sources = {name: Source(Path(folder) / f"{name}.npz") for name in mix}
        mean = {name: np.diff(s.starts).mean() for name, s in self.sources.items()}
        self.names, self.odds = list(mix), [mix[n] / mean[n] for n in mix]
        self.rng, self.steps = random.Random(seed), steps
        self.rows = [self._draw() for _ in range(rows)]
        for row in self.rows:  # start inside the first documents, or all rows would reach their ends together
            row[2] = self.rng.randrange(len(self.sources[row[0]].document(row[1])) - 1)

    def _draw(self):
        name = self.rng.choices(self.names, self.odds)[0]
        return [name, self.sources[name].next(self.rng), 0]

    def batch(self):
        """tokens, targets, pos [rows,steps]; the target of a document's last token is never asked for."""
        tokens, targets, pos = (np.zeros((len(self.rows), self.steps), np.int32) for _ in range(3))
        for b, row in enumerate(self.rows):
            filled = 0
            while filled < self.steps:
                document = self.sources[row[0]].document(row[1])
                n = min(self.steps - filled, len(document) - 1 - row[2])
                tokens[b, filled: filled + n] = document[row[2]: row[2] + n]
                targets[b, filled: filled + n] = document[row[2] + 1: row[2] + 1 + n]
                pos[b, filled: filled + n] = np.arange(row[2], row[2] + n)
                row[2] += n
                filled += n
                if row[2] >= len(document) - 1:
                    row[:] = self._draw()
        return torch.from_numpy(tokens), torch.from_numpy(targets), torch.from_numpy(pos)

    def epochs(self):
        return {n: round(s.epochs - len(s.order) / (len(s.starts) - 1), 2) for n, s in self.sources.items()}

    def state_dict(self):
        return {"rng": self.rng.getstate(), "rows": [list(r) for r in self.rows],
                "sources": {n: (list(s.order), s.epochs) for n, s in self.sources.items()}}

    def load_state_dict(self, state):
        self.rng.setstate(state["rng"])
        if len(state["rows"]) == len(self.rows):
            self.rows = [list(r) for r in state["rows"]]
        for name, (order, epochs) in state["sources"].items():
            if name in self.sources:
                self.sources[name].order, self.sources[name].epochs = list(order), epochs
