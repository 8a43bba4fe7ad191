"""Writes a tiny random RWKV-7 as its authors publish theirs, a state-tuned start for it, and the logits that their own
package gives on a CPU: test/fixtures/rwkv7-tiny.

  python rwkv7_goldens.py [--out test/fixtures]        needs torch, numpy, rwkv (0.8.32 was used)

Weights are drawn so that decays, removals, mixtures and gates all matter in the result.
"""
import argparse
import json
import os
from pathlib import Path

os.environ.update(RWKV_V7_ON="1", RWKV_JIT_ON="0", RWKV_CUDA_ON="0")
import torch
from rwkv.model import RWKV

V, D, L, N, F = 64, 32, 3, 16, 80
H = D // N
RANKS = dict(w=8, a=6, v=4, g=12)
LENGTH = 40


def weights(generator):
    normal = lambda *shape, std=1.0, mean=0.0: torch.randn(*shape, generator=generator) * std + mean
    matrix = lambda rows, columns: normal(rows, columns, std=columns ** -0.5)
    z = {"emb.weight": normal(V, D, std=0.5), "head.weight": matrix(V, D)}
    norms = ["ln_out", "blocks.0.ln0"] + [f"blocks.{l}.{name}" for l in range(L) for name in ("ln1", "ln2", "att.ln_x")]
    for name in norms:
        z[f"{name}.weight"], z[f"{name}.bias"] = normal(D, std=0.2, mean=1), normal(D, std=0.2)
    for l in range(L):
        att, ffn = f"blocks.{l}.att.", f"blocks.{l}.ffn."
        for name in "rwkvag":
            z[f"{att}x_{name}"] = torch.rand(1, 1, D, generator=generator)
        for name, rank in RANKS.items():
            z[f"{att}{name}1"] = matrix(rank, D).T.contiguous()
            z[f"{att}{name}2"] = matrix(D, rank).T.contiguous()
            if name != "g":
                z[f"{att}{name}0"] = normal(1, 1, D, std=1.5 if name == "w" else 0.5, mean=-2.0 if name == "w" else 0.0)
        for name in ("receptance", "key", "value", "output"):
            z[f"{att}{name}.weight"] = matrix(D, D)
        z[f"{att}k_k"], z[f"{att}k_a"] = normal(1, 1, D, std=0.2, mean=0.85), normal(1, 1, D, std=0.2, mean=1)
        z[f"{att}r_k"] = normal(H, N, std=0.3)
        z[f"{ffn}x_k"] = torch.rand(1, 1, D, generator=generator)
        z[f"{ffn}key.weight"], z[f"{ffn}value.weight"] = matrix(F, D), matrix(D, F)
    return z


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="test/fixtures")
    folder = Path(parser.parse_args().out) / "rwkv7-tiny"
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(7)
    torch.save(weights(generator), folder / "model.pth")
    persona = {f"blocks.{l}.att.time_state": torch.randn(H, N, N, generator=generator) * 0.3 for l in range(L)}
    torch.save(persona, folder / "persona.pth")
    model = RWKV(model=str(folder / "model"), strategy="cpu fp32")

    def run(ids, start):
        """`start`: the matrices [value, key] of each layer, or none."""
        state = None if start is None else [part for l in range(L) for part in (
            torch.zeros(D), start[f"blocks.{l}.att.time_state"].clone(), torch.zeros(D))]
        logits, state = model.forward(ids, state, full_output=True)
        return [[round(x, 6) for x in row] for row in logits.float().tolist()], state

    sequences = []
    for start in (None, None, persona):
        ids = torch.randint(1, V, (LENGTH,), generator=generator).tolist()
        logits, state = run(ids, start)
        sequences.append({"token_ids": ids, "logits": logits})
    states = {"att_shift": state[0::3], "time_state": state[1::3], "ffn_shift": state[2::3]}
    about = "rwkv 0.8.32 on CPU in float32, logits [T,V]; `persona` begins with persona.pth, `after` is its state at the end"
    (folder / "expected.json").write_text(json.dumps({
        "about": about, "sequences": sequences[:2], "persona": sequences[2],
        "after": {name: [[round(x, 6) for x in layer.flatten().tolist()] for layer in layers] for name, layers in states.items()},
    }) + "\n")
    print(sum(f.stat().st_size for f in folder.iterdir()), "bytes")


if __name__ == "__main__":
    main()
