"""The fused CPU kernels as differentiable PyTorch functions. kernels/plain.py has the same functions in plain PyTorch.

Shapes: B sequences, T steps, E channels, N states, K taps, V vocabulary. `pos` [B,T] int32 is a token's place in its
document; where it is 0 states are cleared, so several documents may follow one another in a row of the batch.
"""
import ctypes

import torch

from . import products
from .build import library

CHUNKS, LOG2E, TILE = 8, 1.4426950408889634, 16
_lib = None


def _call(name, *args):
    global _lib
    _lib = _lib or library()
    status = getattr(_lib, name)(*[_argument(a) for a in args])
    assert name[:4] != "scan" or status == 0, "the scan kernel is compiled for N = 8 or 16 and at most 4 links"


def _argument(a):
    if isinstance(a, torch.Tensor):
        assert a.is_contiguous(), "kernels take contiguous tensors"
        return ctypes.c_void_p(a.data_ptr())
    if isinstance(a, (list, tuple)):
        return (ctypes.c_void_p * max(1, len(a)))(*[_argument(t) for t in a])
    return ctypes.c_float(a) if isinstance(a, float) else ctypes.c_int(a)


class RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, eps):
        y, rstd = torch.empty_like(x), x.new_empty(x.shape[:-1])
        _call("rms_norm_forward", rstd.numel(), x.shape[-1], eps, x, weight, y, rstd)
        ctx.save_for_backward(x, weight, rstd)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, weight, rstd = ctx.saved_tensors
        dx, dw = torch.empty_like(x), x.new_empty(CHUNKS, x.shape[-1])
        _call("rms_norm_backward", rstd.numel(), x.shape[-1], CHUNKS, x, weight, rstd, dy.contiguous(), dx, dw)
        return dx, dw.sum(0), None


class ConvSilu(torch.autograd.Function):
    """x [B,T,E], weight [E,1,K], bias [E], past [B,K-1,E] -> SiLU(causal conv), the last K-1 inputs."""

    @staticmethod
    def forward(ctx, x, weight, bias, pos, past):
        (B, T, E), K = x.shape, weight.shape[-1]
        taps, u, following = weight[:, 0].t().contiguous(), torch.empty_like(x), torch.empty_like(past)
        _call("conv_silu_forward", B, T, E, K, x, taps, bias, pos, past, u, following)
        ctx.save_for_backward(x, taps, bias, pos, past)
        ctx.mark_non_differentiable(following)
        return u, following

    @staticmethod
    def backward(ctx, du, _):
        x, taps, bias, pos, past = ctx.saved_tensors
        (B, T, E), K = x.shape, taps.shape[0]
        dx, dtaps, dbias = torch.empty_like(x), x.new_empty(B, K, E), x.new_empty(B, E)
        _call("conv_silu_backward", B, T, E, K, x, taps, bias, pos, past, du.contiguous(), dx, dtaps, dbias)
        return dx, dtaps.sum(0).t()[:, None], dbias.sum(0), None, None


class States:
    """The states of all steps of one layer, and what deeper layers' backward passes leave for this layer's."""

    def __init__(self, H):
        self.H, self.readers = H, []  # readers: (gradient of the readout [B,T,E], its C [B,T,N])


class Scan(torch.autograd.Function):
    """Own scan plus readouts C.h of this layer and of the shallower layers in `links` (list of States).

    The gradient for a shallower layer's states does not travel through autograd (it would be [B,T,E,N]) but as an entry of
    States.readers. That layer's backward always runs later: its output reaches this layer through the residual stream.
    """

    @staticmethod
    def forward(ctx, u, raw, bias, A2, Bm, Cm, pos, h0, links, handle, half):
        (B, T, E), N, tiles = u.shape, Bm.shape[-1], -(-u.shape[1] // TILE)
        H = torch.empty(B * tiles * TILE * E * N, dtype=torch.float16 if half else torch.float32)
        out, delta, hT = [torch.empty_like(u) for _ in range(1 + len(links))], torch.empty_like(u), torch.empty_like(h0)
        past = [s.H for s in links]
        _call("scan_forward", B, T, E, N, len(links), half, u, raw, bias, A2, Bm, Cm, pos, h0, hT, H, past, out, delta)
        handle.H = H
        ctx.save_for_backward(u, delta, A2, Bm, Cm, pos, h0)
        ctx.links, ctx.handle, ctx.half = links, handle, half
        ctx.mark_non_differentiable(hT)
        return (hT, *out)

    @staticmethod
    def backward(ctx, _, *dout):
        u, delta, A2, Bm, Cm, pos, h0 = ctx.saved_tensors
        (B, T, E), N, handle = u.shape, Bm.shape[-1], ctx.handle
        dout = [torch.zeros_like(u) if g is None else g.contiguous() for g in dout]
        dU, dRaw, dB, dC = (torch.empty_like(t) for t in (u, u, Bm, Cm))
        dA2 = A2.new_empty(B, *A2.shape)
        _call("scan_backward", B, T, E, N, len(ctx.links), ctx.half, len(handle.readers), u, delta, A2, Bm, Cm, pos, h0, handle.H,
              [s.H for s in ctx.links], dout, [r[0] for r in handle.readers], [r[1] for r in handle.readers], dU, dRaw, dB, dC, dA2)
        for states, gradient in zip(ctx.links, dout[1:]):
            states.readers.append((gradient, Cm))
        handle.readers = []
        return dU, dRaw, dRaw.sum((0, 1)), dA2.sum(0), dB, dC, None, None, None, None, None


class Combine(torch.autograd.Function):
    """(r_0 + sum_i SiLU(gate_i) * r_i + D*u) * SiLU(z); gates [B,T,k*E]: one per link, or one for all."""

    @staticmethod
    def forward(ctx, gates, D, u, z, *r):
        y, E = torch.empty_like(u), u.shape[-1]
        k = 0 if gates is None else gates.shape[-1] // E
        ctx.k, ctx.has_gates = k, gates is not None
        gates = u if gates is None else gates
        _call("combine_forward", u.numel() // E, E, len(r) - 1, k, r, gates, D, u, z, y)
        ctx.save_for_backward(gates, D, u, z, *r)
        return y

    @staticmethod
    def backward(ctx, dy):
        gates, D, u, z, *r = ctx.saved_tensors
        E, dr = u.shape[-1], [torch.empty_like(u) for _ in r]
        dgates, du, dz, dD = torch.empty_like(gates), torch.empty_like(u), torch.empty_like(u), D.new_empty(CHUNKS, E)
        _call("combine_backward", u.numel() // E, E, len(r) - 1, ctx.k, CHUNKS, r, gates, D, u, z, dy.contiguous(), dr, dgates, du, dz, dD)
        return (dgates if ctx.has_gates else None, dD.sum(0), du, dz, *dr)


class HeadLoss(torch.autograd.Function):
    """x [rows,D], head [V,D], target [rows] int32, weight [rows] -> sum(weight * nats), nats [rows]."""

    @staticmethod
    def forward(ctx, x, head, target, weight, training):
        x, head, nats = products.rounded(x, training), products.rounded(head, training), x.new_empty(x.shape[0])
        logits = (x @ head.t()).float()
        _call("cross_entropy", *logits.shape, logits, target, weight, nats)  # logits become their own gradient
        ctx.save_for_backward(x, head, products.rounded(logits, training))
        ctx.mark_non_differentiable(nats)
        return (weight * nats).sum(), nats

    @staticmethod
    def backward(ctx, g, _):
        x, head, dlogits = ctx.saved_tensors
        return g * (dlogits @ head).float(), g * (dlogits.t() @ x).float(), None, None, None


rms_norm, conv_silu, combine = RmsNorm.apply, ConvSilu.apply, Combine.apply


def head_loss(x, head, target, weight):
    return HeadLoss.apply(x, head, target, weight, torch.is_grad_enabled())


def scan(u, raw, bias, A, Bm, Cm, pos, h0, links, half=True):
    """A [E,N] (negative); h0 [B,E/8,N,8]. Returns the last state, the readouts [B,T,E] (own first) and this layer's States."""
    E, N = A.shape
    A2 = (A * LOG2E).view(E // 8, 8, N).transpose(1, 2).contiguous()
    handle = States(None)
    hT, *readouts = Scan.apply(u, raw, bias, A2, Bm, Cm, pos, h0, links, handle, int(half))
    return hT, readouts, handle


def zero_state(B, E, N, K, device):
    return torch.zeros(B, E // 8, N, 8, device=device), torch.zeros(B, K - 1, E, device=device)
