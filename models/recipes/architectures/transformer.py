"""A LLaMA-style Transformer (RMSNorm, rotary positions, SwiGLU, tied embeddings) for comparison.

It has no fixed-size state: what travels to the next piece of a document are the keys and values of the last piece, so that its
context is between one and two pieces long.
"""
import torch
import torch.nn.functional as F
from torch import nn

import kernels as backends

from .densemamba import Norm
from .retnet import rotate, rotation


class Config:
    def __init__(self, vocab=4096, hidden=256, layers=5, heads=4, ffn=640, eps=1e-5):
        self.vocab, self.hidden, self.layers, self.heads, self.ffn, self.eps = vocab, hidden, layers, heads, ffn, eps


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        D = config.hidden
        self.heads = config.heads
        self.input_layernorm, self.post_attention_layernorm = Norm(D, config.eps), Norm(D, config.eps)
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(D, D, bias=False) for _ in range(4))
        self.gate_proj, self.up_proj = nn.Linear(D, config.ffn, bias=False), nn.Linear(D, config.ffn, bias=False)
        self.down_proj = nn.Linear(config.ffn, D, bias=False)
        nn.init.zeros_(self.o_proj.weight)
        nn.init.zeros_(self.down_proj.weight)

    def forward(self, x, pos, cached, angles, kernels, drop):
        B, T, D = x.shape
        n = self.input_layernorm(x, kernels)
        q, k, v = (proj(n).view(B, T, self.heads, -1).transpose(1, 2) for proj in (self.q_proj, self.k_proj, self.v_proj))
        q, k = rotate(q, angles), rotate(k, angles)
        keys, values = (k, v) if cached is None else (torch.cat([cached[0], k], 2), torch.cat([cached[1], v], 2))
        behind = keys.shape[2] - T
        distance = torch.arange(T, device=x.device)[:, None] + behind - torch.arange(behind + T, device=x.device)
        seen = (distance >= 0) & (distance <= pos[:, :, None])  # earlier, and in the same document
        scores = (q @ keys.transpose(2, 3)) * q.shape[-1] ** -0.5
        y = torch.softmax(scores.masked_fill(~seen[:, None], float("-inf")), -1) @ values
        x = x + drop(self.o_proj(y.transpose(1, 2).reshape(B, T, D)))
        n = self.post_attention_layernorm(x, kernels)
        return x + drop(self.down_proj(F.silu(self.gate_proj(n)) * self.up_proj(n))), (k.detach(), v.detach())


class Transformer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config, self.kernels, self.drop = config, backends.best(), nn.Dropout(0)
        self.embeddings = nn.Embedding(config.vocab, config.hidden)
        nn.init.normal_(self.embeddings.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = Norm(config.hidden, config.eps)

    def zero_state(self, B):
        return [None] * self.config.layers

    def forward(self, tokens, pos, state):
        x, following = self.drop(self.embeddings(tokens)), []
        angles = rotation(pos, self.config.hidden // self.config.heads)
        for layer, cached in zip(self.layers, state):
            x, cached = layer(x, pos, cached, angles, self.kernels, self.drop)
            following.append(cached)
        return self.norm(x, self.kernels), following

    def loss(self, hidden, target, weight):
        flat = hidden.reshape(-1, hidden.shape[-1])
        return self.kernels.head_loss(flat, self.embeddings.weight, target.reshape(-1), weight.reshape(-1))
