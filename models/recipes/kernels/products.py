"""Matrix products in 16 bits where the CPU multiplies them (AVX512_BF16): more than twice as fast, and as much as training needs.

Inputs are rounded to bfloat16, sums are kept in 32 bits and rounded once. Only while gradients are asked for: validation
stays in 32 bits, and so does all that `enabled = False` is set for.
"""
from pathlib import Path

import torch
import torch.nn.functional as F

_cpuinfo = Path("/proc/cpuinfo")
enabled = not torch.cuda.is_available() and _cpuinfo.exists() and " avx512_bf16 " in _cpuinfo.read_text()


def rounded(x, wanted=True):
    """x, ready for products: a matrix that is used in several is rounded once."""
    return x.bfloat16() if enabled and wanted else x


class Linear(torch.autograd.Function):
    """x [..., D], weight [E, D] -> x weight^T [..., E]."""

    @staticmethod
    def forward(ctx, x, weight):
        x, weight = x.bfloat16(), weight.bfloat16()
        ctx.save_for_backward(x, weight)
        return (x @ weight.t()).float()

    @staticmethod
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        dy = dy.bfloat16()
        return (dy @ weight).float(), (dy.flatten(0, -2).t() @ x.flatten(0, -2)).float()


def linear(x, weight):
    return Linear.apply(x, weight) if enabled and torch.is_grad_enabled() else F.linear(x, weight)
