"""Muon for the matrices inside the network, Adam for embeddings, vectors and small projections.

Muon (Jordan et al. 2024) replaces a matrix's momentum by the nearest orthogonal matrix, found with a few Newton-Schulz steps:
every direction of the weight moves equally fast. At this size it needs about half as many tokens as Adam for the same loss.
"""
import torch

from kernels.products import rounded


def orthogonalise(G, steps=5):
    """Newton-Schulz with Keller Jordan's quintic: singular values of G end between about 0.7 and 1.2."""
    a, b, c = 3.4445, -4.7750, 2.0315
    X = G.t() if G.shape[0] > G.shape[1] else G
    X = rounded(X / (X.norm() + 1e-7))
    for _ in range(steps):
        A = X @ X.t()
        X = a * X + (b * A + c * A @ A) @ X
    return (X.t() if G.shape[0] > G.shape[1] else X).float()


class Muon(torch.optim.Optimizer):
    """`split` on a parameter says of how many matrices, stacked along the rows, it is made (in_proj holds two)."""

    def __init__(self, params, lr, decay, momentum=0.95):
        super().__init__(params, {"lr": lr, "momentum": momentum, "decay": decay})

    def step(self, pool):
        for group in self.param_groups:
            list(pool.map(lambda p: self.update(p, group), group["params"]))

    @torch.no_grad()
    def update(self, p, group):
        m = self.state[p].setdefault("momentum", torch.zeros_like(p))
        m.lerp_(p.grad, 1 - group["momentum"])
        update = p.grad.lerp(m, group["momentum"])  # Nesterov
        p.mul_(1 - group["lr"] * group["decay"])
        for part, target in zip(update.chunk(getattr(p, "split", 1)), p.chunk(getattr(p, "split", 1))):
            scale = max(1, part.shape[0] / part.shape[1]) ** 0.5
            target.add_(orthogonalise(part), alpha=-group["lr"] * scale)


class Adam(torch.optim.AdamW):
    def step(self, pool):
        super().step()


def build(model, muon_lr, adam_lr, decay=0.01):
    """Matrices with both sides of at least 32 go to Muon, unless they are embeddings (first or last layer).

    decay: a step takes lr x decay of each weight, except of vectors and small projections (they are scales, biases and time constants).
    """
    matrices, embeddings, others = [], [], []
    for name, p in model.named_parameters():
        if "embeddings" in name or "lm_head" in name:
            embeddings.append(p)
        elif p.ndim == 2 and min(p.shape) >= 32 and "A_log" not in name:
            p.split = model.split(name) if hasattr(model, "split") else 1
            matrices.append(p)
        else:
            others.append(p)
    adam = Adam([{"params": embeddings, "lr": adam_lr, "weight_decay": decay}, {"params": others, "lr": adam_lr / 2, "weight_decay": 0}], betas=(0.9, 0.98), eps=1e-10)
    optimizers = [Muon(matrices, muon_lr, decay), adam]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


class Average:
    """Exponential average of the weights: most of what a decayed learning rate would give, at any time."""

    def __init__(self, model, horizon=400):
        self.horizon, self.count = horizon, 0
        self.weights = {n: p.detach().clone() for n, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model):
        self.count += 1
        rate = max(1 / self.horizon, 1 / (self.count + 1))
        for n, p in model.named_parameters():
            self.weights[n].lerp_(p, rate)

    def swap(self, model):
        """Exchange the model's weights and the average (call twice to undo)."""
        for n, p in model.named_parameters():
            self.weights[n], p.data = p.data, self.weights[n]
