"""DenseRetNet (m dense links) and RetNet (m = 0): the gated-attention-unit RetNet of the DenseSSM authors' code, without dropout.

Names are those of its checkpoints. Symbols: q, k, v of a head with key width dk and value width dv; gamma decay of a head;
S [dk,dv] its state, carried unnormalised: S_t = gamma S_{t-1} + k_t v_t^T, y_t = q_t S_t / sqrt(1 + gamma + .. + gamma^pos).
A piece of a document is computed in parallel, with the state from before it as a second term.
"""
import torch
import torch.nn.functional as F
from torch import nn

import kernels as backends

from .densemamba import Norm


class Config:
    def __init__(self, vocab=4096, hidden=256, layers=6, key=128, v_factor=2, heads=4, m=2, k_select=16, v_select=32, eps=1e-6, value=None):
        self.vocab, self.hidden, self.layers, self.key, self.value = vocab, hidden, layers, key, value or v_factor * hidden
        self.heads, self.m, self.k_select, self.v_select, self.eps = heads, m, k_select, v_select, eps


class Select(nn.Module):
    def __init__(self, config, rank, width):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(config.hidden, rank, bias=False), nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.fc2.weight)

    def forward(self, x):
        return F.silu(self.fc2(F.silu(self.fc1(x))))


class Retention(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        D, K, V = config.hidden, config.key, config.value
        self.config, self.dense = config, config.m > 0 and layer > 0
        self.q_proj, self.k_proj = nn.Linear(D, K, bias=False), nn.Linear(D, K, bias=False)
        self.to_hidden = nn.Sequential(nn.Linear(D, 2 * V, bias=False))
        self.to_out = nn.Sequential(nn.Linear(V, D, bias=False))
        nn.init.zeros_(self.to_out[0].weight)
        self.group_norm = Norm(V // config.heads, config.eps)
        if self.dense:
            self.k_norm, self.v_norm = Norm(K, config.eps), Norm(V, config.eps)
            self.k_select, self.v_select = Select(config, config.k_select, K), Select(config, config.v_select, V)

    def forward(self, x, pos, S, past, rotation, kernels):
        """x [B,T,D], S [B,H,dk,dv]; past: unfused (k, v) of the shallower layers. Returns out, new S, own unfused (k, v)."""
        (B, T, _), H = x.shape, self.config.heads
        q, k = F.silu(self.q_proj(x)), F.silu(self.k_proj(x)) * (self.config.key // H) ** -0.5
        v, gate = F.silu(self.to_hidden[0](x)).chunk(2, -1)
        own = k, v
        if self.dense:
            links = past[-self.config.m:]
            k = self.k_norm(k + self.k_select(x) * sum(pair[0] for pair in links), kernels)
            v = self.v_norm((v + self.v_select(x) * sum(pair[1] for pair in links)).contiguous(), kernels)
        q, k, v = (t.view(B, T, H, -1).transpose(1, 2) for t in (q, k, v))
        q, k = rotate(q, rotation), rotate(k, rotation)

        log_gamma = torch.log1p(-(2.0 ** (-5 - torch.arange(H, device=x.device))))[None, :, None]  # [1,H,1]
        place, step = pos[:, None].float(), torch.arange(T, device=x.device, dtype=torch.float32)
        distance = step[:, None] - step
        within = (distance >= 0) & (distance <= pos[:, :, None])  # j is not after i and belongs to i's document
        decay = torch.exp(log_gamma[..., None] * distance.clamp(min=0)) * within[:, None]
        before = torch.exp(log_gamma * (step + 1)) * (place > step)  # [B,H,T], 0 once a new document has begun
        y = ((q @ k.transpose(2, 3)) * decay) @ v + before[..., None] * (q @ S)
        scale = -torch.expm1(log_gamma * (place + 1)) / -torch.expm1(log_gamma)
        y = (y * torch.rsqrt(scale)[..., None]).transpose(1, 2).contiguous()
        S = before[:, :, -1:, None] * S + (k * decay[:, :, -1, :, None]).transpose(2, 3) @ v
        y = self.group_norm(y, kernels).reshape(B, T, -1)
        return self.to_out[0](y * gate), S.detach(), own


def rotation(pos, dk):
    angle = 10000.0 ** -torch.linspace(0, 1, dk // 2, device=pos.device)
    phase = (pos[..., None].double() * angle.double())[:, None]
    return torch.cos(phase).float(), torch.sin(phase).float()


def rotate(x, cos_sin):
    (cos, sin), even, odd = cos_sin, x[..., ::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], -1).flatten(-2)


class Layer(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.input_layernorm, self.self_attn = Norm(config.hidden, config.eps), Retention(config, layer)


class Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab, config.hidden)
        nn.init.normal_(self.embed_tokens.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(config, l) for l in range(config.layers))
        self.norm = Norm(config.hidden, config.eps)


class RetNet(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config, self.model = config, Model(config)
        self.kernels, self.drop = backends.best(), nn.Dropout(0)

    @staticmethod
    def split(name):
        return 2 if "to_hidden" in name else 1

    def zero_state(self, B):
        c, device = self.config, self.model.embed_tokens.weight.device
        return [torch.zeros(B, c.heads, c.key // c.heads, c.value // c.heads, device=device) for _ in range(c.layers)]

    def forward(self, tokens, pos, state):
        x, past, following = self.drop(self.model.embed_tokens(tokens)), [], []
        angles = rotation(pos, self.config.key // self.config.heads)
        for layer, S in zip(self.model.layers, state):
            out, S, own = layer.self_attn(layer.input_layernorm(x, self.kernels), pos, S, past, angles, self.kernels)
            x = x + self.drop(out)
            past.append(own)
            following.append(S)
        return self.model.norm(x, self.kernels), following

    def loss(self, hidden, target, weight):
        flat = hidden.reshape(-1, hidden.shape[-1])
        return self.kernels.head_loss(flat, self.model.embed_tokens.weight, target.reshape(-1), weight.reshape(-1))
