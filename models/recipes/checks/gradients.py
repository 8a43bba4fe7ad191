"""The fused kernels against plain PyTorch: loss, carried states and every gradient, over two pieces with documents that end inside.

python gradients.py [cpu|gpu]: the C++ kernels, or the Triton ones (with TRITON_INTERPRET=1 where there is no GPU).
"""
import importlib
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from architectures.densemamba import Config, DenseMamba  # noqa: E402
from kernels import plain, products  # noqa: E402

DEVICE = "cuda" if sys.argv[-1] == "gpu" and torch.cuda.is_available() else "cpu"


def run(kernels, config, seed, tokens, pos, half=False):
    torch.manual_seed(seed)
    model = DenseMamba(config, half=half, kernels=kernels).to(DEVICE)
    for name, p in model.named_parameters():
        if p.abs().max() == 0:
            torch.nn.init.normal_(p, std=0.3)  # zero-initialised weights would hide their inputs' gradients
    state, total = model.zero_state(tokens.shape[0]), 0
    T = tokens.shape[1] // 2
    for piece in (slice(0, T), slice(T, 2 * T)):
        hidden, state = model(tokens[:, piece].contiguous().to(DEVICE), pos[:, piece].contiguous().to(DEVICE), state)
        weight = torch.rand(hidden.shape[:2], generator=torch.Generator().manual_seed(1)).to(DEVICE) / T
        loss, _ = model.loss(hidden, tokens[:, piece].roll(-1, 1).int().contiguous().to(DEVICE), weight)
        loss.backward()
        total += loss.item()
    return total, {n: p.grad.clone() for n, p in model.named_parameters()}


def main():
    products.enabled = False
    fused = importlib.import_module({"cpu": "kernels.ops", "gpu": "kernels.gpu"}[sys.argv[1] if len(sys.argv) > 1 else "cpu"])
    for m, half in ((0, False), (2, False), (3, False), (2, True)):
        if half and fused.__name__ == "kernels.gpu" and DEVICE == "cpu":
            continue  # PyTorch multiplies no 16-bit matrices on a CPU
        config = Config(vocab=64, hidden=32, layers=4, state=8, rank=4, m=m, gate_rank=8)
        tokens = torch.randint(64, (3, 2 * 37), generator=torch.Generator().manual_seed(2))
        pos = torch.arange(74).repeat(3, 1).int()
        pos[1, 20:] -= 20
        pos[2, 50:] -= 50
        loss, grads = run(fused, config, 0, tokens, pos, half)
        expected, expected_grads = run(plain, config, 0, tokens, pos)
        worst = max(((grads[n] - g).norm() / g.norm().clamp(min=1e-8)).item() for n, g in expected_grads.items())
        name = max(expected_grads, key=lambda n: ((grads[n] - expected_grads[n]).norm() / expected_grads[n].norm().clamp(min=1e-8)).item())
        print(f"m={m} half={half}: loss {loss:.6f} plain {expected:.6f}, worst relative gradient error {worst:.1e} ({name})")
        assert abs(loss - expected) < (2e-3 if half else 1e-4) and worst < (1e-2 if half else 1e-4)


if __name__ == "__main__":
    main()
