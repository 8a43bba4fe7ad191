"""Name -> model. Every model has zero_state(rows), forward(tokens, pos, state) -> hidden, state, and loss(hidden, target, weight)."""
from . import densemamba, retnet, transformer

NAMES = {
    "dense_mamba": (densemamba.DenseMamba, densemamba.Config, {}),
    "mamba": (densemamba.DenseMamba, densemamba.Config, {"m": 0}),
    "dense_retnet": (retnet.RetNet, retnet.Config, {}),
    "retnet": (retnet.RetNet, retnet.Config, {"m": 0}),
    "transformer": (transformer.Transformer, transformer.Config, {}),
}


def create(name, size):
    model, config, fixed = NAMES[name]
    return model(config(**{**size, **fixed}))
