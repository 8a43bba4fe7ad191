"""DenseMamba (m dense links) and Mamba (m = 0). Parameter names are those of the checkpoint format, so export is a dump.

For the symbols see goldens/reference.py. The states of a batch travel from one call to the next, so that a long document
is trained on in pieces with its whole past behind it (gradients stop at the piece's start).
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

import kernels as backends
from kernels.products import linear


class Config:
    """Sizes of a model; `m` links to shallower layers through gates of rank `gate_rank`.

    For comparisons only (the checkpoint format does not know them): `inner` other than a multiple of `hidden`; `gate` "linear"
    (SiLU(W x), no MLP) or "static" (a learned number per channel); `project`, a learned map of the shallower state's channels.
    """

    def __init__(self, vocab=8192, hidden=288, layers=7, state=16, expand=2, conv=4, rank=16, m=2, gate_rank=32, eps=1e-5,
                 inner=None, gate="mlp", project=False):
        self.vocab, self.hidden, self.layers, self.state, self.expand, self.conv = vocab, hidden, layers, state, expand, conv
        self.rank, self.m, self.gate_rank, self.eps = rank, m, gate_rank, eps
        self.inner, self.gate, self.project = inner or hidden * expand, gate, project


class Norm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x, kernels):
        return kernels.rms_norm(x, self.weight, self.eps)


class Select(nn.Module):
    """G(x) before its outer SiLU: fc2(SiLU(fc1 x)). fc2 starts at zero, so a new model is a plain Mamba."""

    def __init__(self, config, links):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden, config.gate_rank, bias=False)
        self.fc2 = nn.Linear(config.gate_rank, links * config.inner, bias=False)
        nn.init.zeros_(self.fc2.weight)

    def forward(self, x):
        return linear(F.silu(linear(x, self.fc1.weight)), self.fc2.weight)


class LinearGate(nn.Module):
    def __init__(self, config, links):
        super().__init__()
        self.fc = nn.Linear(config.hidden, links * config.inner, bias=False)
        nn.init.zeros_(self.fc.weight)

    def forward(self, x):
        return linear(x, self.fc.weight)


class StaticGate(nn.Module):
    def __init__(self, config, links):
        super().__init__()
        self.value = nn.Parameter(torch.zeros(links * config.inner))

    def forward(self, x):
        return self.value.expand(*x.shape[:-1], -1).contiguous()


GATES = {"mlp": Select, "linear": LinearGate, "static": StaticGate}


class Mixer(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        D, E, N, R, K = config.hidden, config.inner, config.state, config.rank, config.conv
        self.sizes = E, N, R
        self.in_proj, self.x_proj = nn.Linear(D, 2 * E, bias=False), nn.Linear(E, R + 2 * N, bias=False)
        self.dt_proj, self.out_proj = nn.Linear(R, E), nn.Linear(E, D, bias=False)
        self.conv1d = nn.Conv1d(E, E, K, groups=E)
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, N + 1)).repeat(E, 1))
        self.D = nn.Parameter(torch.ones(E))
        self.links = min(config.m, layer)
        self.select = GATES[config.gate](config, self.links) if self.links else None
        self.projections = nn.ModuleList(nn.Linear(E, E, bias=False) for _ in range(self.links if config.project else 0))
        for projection in self.projections:
            nn.init.eye_(projection.weight)
        nn.init.zeros_(self.out_proj.weight)
        nn.init.uniform_(self.dt_proj.weight, -R ** -0.5, R ** -0.5)
        dt = torch.exp(torch.rand(E) * (math.log(0.1) - math.log(0.001)) + math.log(0.001))  # Mamba's spread of time scales
        with torch.no_grad():
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # inverse of softplus

    def forward(self, x, pos, state, past, kernels, half):
        """x [B,T,D] normalised; past: States of the shallower layers, shallowest first. Returns out, new state, own States."""
        E, N, R = self.sizes
        h0, conv0 = state
        x_half, z_half = self.in_proj.weight[:E], self.in_proj.weight[E:]
        u, conv = kernels.conv_silu(linear(x, x_half), self.conv1d.weight, self.conv1d.bias, pos, conv0)
        delta, B, C = (t.contiguous() for t in self.x_proj(u).split([R, N, N], -1))
        links = past[::-1][: self.links]
        h, readouts, states = kernels.scan(u, F.linear(delta, self.dt_proj.weight), self.dt_proj.bias,
                                           -torch.exp(self.A_log), B, C, pos, h0, links, half)
        gates = self.select(x) if self.select else None
        # a map of channels commutes with the readout C.h, so it acts on [B,T,E] instead of [B,T,E,N]
        readouts[1:] = [project(r) for project, r in zip(self.projections, readouts[1:])] or readouts[1:]
        y = kernels.combine(gates, self.D, u, linear(x, z_half), *readouts)
        return linear(y, self.out_proj.weight), (h, conv), states


class Layer(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.norm, self.mixer = Norm(config.hidden, config.eps), Mixer(config, layer)


class Backbone(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embeddings = nn.Embedding(config.vocab, config.hidden)
        nn.init.normal_(self.embeddings.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(config, l) for l in range(config.layers))
        self.norm_f = Norm(config.hidden, config.eps)


class DenseMamba(nn.Module):
    """Input and output embeddings are tied. `half` keeps the states for the backward pass in 16 bits."""

    def __init__(self, config, half=True, kernels=None):
        super().__init__()
        self.config, self.half, self.backbone = config, half, Backbone(config)
        self.kernels, self.drop = kernels or backends.best(), nn.Dropout(0)

    @staticmethod
    def split(name):
        """in_proj is two matrices, for x and for z."""
        return 2 if "in_proj" in name else 1

    def zero_state(self, B):
        c, device = self.config, self.backbone.embeddings.weight.device
        return [self.kernels.zero_state(B, c.inner, c.state, c.conv, device) for _ in range(c.layers)]

    def forward(self, tokens, pos, state):
        """tokens, pos [B,T] -> normalised hidden [B,T,D], new state (detached)."""
        x, past, following = self.drop(self.backbone.embeddings(tokens)), [], []
        for layer, layer_state in zip(self.backbone.layers, state):
            out, layer_state, states = layer.mixer(layer.norm(x, self.kernels), pos, layer_state, past, self.kernels, self.half)
            x = x + self.drop(out)
            past.append(states)
            following.append(layer_state)
        return self.backbone.norm_f(x, self.kernels), following

    def loss(self, hidden, target, weight):
        """hidden [B,T,D], target [B,T] -> sum(weight * nats), nats [B*T]."""
        flat = hidden.reshape(-1, hidden.shape[-1])
        return self.kernels.head_loss(flat, self.backbone.embeddings.weight, target.reshape(-1), weight.reshape(-1))
