"""The scan for CUDA in Triton; everything else from kernels/plain.py. TRITON_INTERPRET=1 runs it on a CPU, for checks.

One program walks one sequence for a block of channels, its states [BE,N] in registers. As in scan.cpp all states are kept (in
16 bits) for the backward pass and for deeper layers, and gradients from deeper readouts come as rank-one terms.
"""
import torch
import triton
import triton.language as tl

from .ops import LOG2E, States
from .plain import combine, conv_silu, head_loss, rms_norm, zero_state  # noqa: F401  (this module stands in for plain)

BE = 32


@triton.jit
def scan_forward(u, raw, bias, A2, Bm, Cm, pos, h0, hT, H, y, delta, T, E: tl.constexpr, N: tl.constexpr, BE: tl.constexpr):
    b, e, n = tl.program_id(0), tl.program_id(1) * BE + tl.arange(0, BE), tl.arange(0, N)
    cells = e[:, None] * N + n[None, :]
    h, a, shift = tl.load(h0 + b * E * N + cells), tl.load(A2 + cells), tl.load(bias + e)
    for t in range(T):
        row = (b * T + t).to(tl.int64)
        x, z = tl.load(u + row * E + e), tl.load(raw + row * E + e) + shift
        d = tl.maximum(z, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(z)))
        keep = (tl.load(pos + row) > 0).to(tl.float32)
        h = tl.exp2(d[:, None] * a) * h * keep + (d * x)[:, None] * tl.load(Bm + row * N + n)[None, :]
        tl.store(y + row * E + e, tl.sum(h * tl.load(Cm + row * N + n)[None, :], 1))
        tl.store(delta + row * E + e, d)
        tl.store(H + row * E * N + cells, h)
    tl.store(hT + b * E * N + cells, h)


@triton.jit
def scan_backward(u, delta, A2, Bm, Cm, pos, h0, H, dy, dread, Cread, dU, dRaw, dB, dA, rows, T,
                  READERS: tl.constexpr, E: tl.constexpr, N: tl.constexpr, BE: tl.constexpr):
    b, block, n = tl.program_id(0), tl.program_id(1), tl.arange(0, N)
    e = block * BE + tl.arange(0, BE)
    cells = e[:, None] * N + n[None, :]
    a, g, acc = tl.load(A2 + cells), tl.zeros([BE, N], tl.float32), tl.zeros([BE, N], tl.float32)
    for i in range(T):
        t = T - 1 - i
        row = (b * T + t).to(tl.int64)
        d, x = tl.load(delta + row * E + e), tl.load(u + row * E + e)
        Bt = tl.load(Bm + row * N + n)
        g += tl.load(dy + row * E + e)[:, None] * tl.load(Cm + row * N + n)[None, :]
        for j in tl.static_range(READERS):
            other = j * rows + row
            g += tl.load(dread + other * E + e)[:, None] * tl.load(Cread + other * N + n)[None, :]
        to_b = tl.sum(g * Bt[None, :], 1)
        tl.store(dB + (block * rows + row) * N + n, tl.sum(g * (d * x)[:, None], 0))
        earlier = tl.load(H + (row - 1) * E * N + cells, mask=(cells >= 0) & (t > 0), other=0.0).to(tl.float32)
        first = tl.load(h0 + b * E * N + cells, mask=(cells >= 0) & (t == 0), other=0.0)
        keep = (tl.load(pos + row) > 0).to(tl.float32)
        g = g * tl.exp2(d[:, None] * a) * keep
        q = g * (earlier + first)
        acc += q * d[:, None]
        tl.store(dU + row * E + e, d * to_b)
        slope = 1.0 - tl.exp(-d)  # sigmoid of softplus' argument
        tl.store(dRaw + row * E + e, (0.69314718056 * tl.sum(q * a, 1) + x * to_b) * slope)
    tl.store(dA + b * E * N + cells, acc * 0.69314718056)


class Scan(torch.autograd.Function):
    """As ops.Scan, with H [B,T,E,N]."""

    @staticmethod
    def forward(ctx, u, raw, bias, A2, Bm, Cm, pos, h0, links, handle, half):
        (B, T, E), N = u.shape, Bm.shape[-1]
        H = u.new_empty(B, T, E, N, dtype=torch.float16 if half else torch.float32)
        y, delta, hT = torch.empty_like(u), torch.empty_like(u), torch.empty_like(h0)
        scan_forward[(B, E // BE)](u, raw.contiguous(), bias, A2, Bm, Cm, pos, h0, hT, H, y, delta, T, E, N, BE, num_warps=1)
        handle.H = H
        ctx.save_for_backward(u, delta, A2, Bm, Cm, pos, h0)
        ctx.links, ctx.handle = links, handle
        ctx.mark_non_differentiable(hT)
        return (hT, y, *(readout(s.H, Cm) for s in links))

    @staticmethod
    def backward(ctx, _, *dout):
        u, delta, A2, Bm, Cm, pos, h0 = ctx.saved_tensors
        (B, T, E), N, handle = u.shape, Bm.shape[-1], ctx.handle
        dout = [torch.zeros_like(u) if g is None else g.contiguous() for g in dout]
        readers = handle.readers
        dread, Cread = (torch.stack([r[i] for r in readers]) if readers else u for i in (0, 1))
        dU, dRaw, dB, dA = torch.empty_like(u), torch.empty_like(u), u.new_empty(E // BE, B, T, N), u.new_empty(B, E, N)
        scan_backward[(B, E // BE)](u, delta, A2, Bm, Cm, pos, h0, handle.H, dout[0], dread, Cread, dU, dRaw, dB, dA, B * T, T,
                                    len(readers), E, N, BE, num_warps=1)
        dC = sum(towards_c(H, g) for H, g in zip([handle.H] + [s.H for s in ctx.links], dout))
        for states, gradient in zip(ctx.links, dout[1:]):
            states.readers.append((gradient, Cm))
        handle.readers = []
        return dU, dRaw, dRaw.sum((0, 1)), dA.sum(0), dB.sum(0), dC, None, None, None, None, None


def readout(H, C):
    """C.h for every step: [B,T,E,N] x [B,T,N] -> [B,T,E]."""
    return (H @ C.to(H.dtype)[..., None])[..., 0].float()


def towards_c(H, g):
    """Gradient of the readout for C. g is scaled to fit 16 bits: gradients of a mean are tiny."""
    scale = g.abs().amax().clamp(min=1e-30)
    return (((g / scale).to(H.dtype)[..., None, :] @ H)[..., 0, :]).float() * scale


def scan(u, raw, bias, A, Bm, Cm, pos, h0, links, half=True):
    handle = States(None)
    hT, *readouts = Scan.apply(u, raw, bias, (A * LOG2E).contiguous(), Bm, Cm, pos, h0, links, handle, half)
    return hT, readouts, handle
