"""What kernels/ops.py computes, in plain PyTorch: the check of its gradients, and the way to run on CUDA.

It is slow (a Python loop over time) and keeps every state in float32.
"""
import torch
import torch.nn.functional as F


class States:
    def __init__(self, H):
        self.H = H  # [B,T,E,N]


def rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def conv_silu(x, weight, bias, pos, past):
    (B, T, E), K = x.shape, weight.shape[-1]
    extended, total = torch.cat([past, x], 1), bias
    for j in range(K):
        shifted = extended[:, K - 1 - j: K - 1 - j + T]
        total = total + weight[:, 0, K - 1 - j] * shifted * (pos >= j)[..., None]
    return F.silu(total), extended[:, T:].detach()


def scan(u, raw, bias, A, Bm, Cm, pos, h0, links, half=False):
    delta = F.softplus(raw + bias)
    keep = (pos > 0).to(u.dtype)
    h, states = h0, []
    for t in range(u.shape[1]):
        decay = torch.exp(delta[:, t, :, None] * A) * keep[:, t, None, None]
        h = decay * h + (delta[:, t] * u[:, t])[..., None] * Bm[:, t, None]
        states.append(h)
    H = torch.stack(states, 1)
    readouts = [torch.einsum("bten,btn->bte", s, Cm) for s in [H] + [link.H for link in links]]
    return h.detach(), readouts, States(H)


def combine(gates, D, u, z, *r):
    y = r[0] + D * u
    for i in range(1, len(r)):
        k = gates.shape[-1] // u.shape[-1]
        which = min(i - 1, k - 1)
        y = y + F.silu(gates[..., which * u.shape[-1]: (which + 1) * u.shape[-1]]) * r[i]
    return y * F.silu(z)


def head_loss(x, head, target, weight):
    nats = F.cross_entropy(x @ head.t(), target.long(), reduction="none")
    return (weight * nats).sum(), nats.detach()


def zero_state(B, E, N, K, device):
    return torch.zeros(B, E, N, device=device), torch.zeros(B, K - 1, E, device=device)
