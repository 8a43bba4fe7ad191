"""DenseMamba's forward pass, written to be read and not to be fast: one sequence, one step at a time, float64.

It takes nothing from the trainer or from the server, so that three implementations can check one another.
m = 0 is plain Mamba. Only torch, numpy and safetensors are needed.

Symbols, as in "Mamba" (arXiv 2312.00752) and "DenseMamba" (arXiv 2403.00818):
  D  hidden_size        width of the residual stream
  E  d_inner            expand * D, number of channels
  N  state_size         numbers a channel remembers
  R  time_step_rank     rank of the projection that gives Delta
  K  conv_kernel        taps of the causal depthwise convolution
  m  dense_layers       how many shallower layers a layer reads
  A  [E,N]  -exp(A_log), decay rate of the state      Delta [E]  step size, > 0
  B, C [N]  write and read vectors of this step       u [E]  convolved input      z [E]  output gate
  h  [E,N]  carried state of a layer (own recurrence only)
  G  [E]    selective gate on a shallower layer's state
"""
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

DTYPE = torch.float64


class DenseMamba:
    """Weights of a checkpoint folder (config.json + model.safetensors) and the state of one sequence."""

    def __init__(self, folder):
        self.config = json.loads((Path(folder) / "config.json").read_text())
        weights = load_file(str(Path(folder) / "model.safetensors"))
        self.w = {name: tensor.to(DTYPE) for name, tensor in weights.items()}
        c = self.config
        self.num_layers, self.m = c["num_hidden_layers"], c.get("dense_layers", 0)
        self.N, self.K, self.R, self.eps = c["state_size"], c["conv_kernel"], c["time_step_rank"], c["layer_norm_epsilon"]
        self.E = self.w["backbone.layers.0.mixer.D"].shape[0]
        self.reset()

    def reset(self):
        """Forget everything: zero `ssm` [E,N] and `conv` [K-1,E] (oldest input first) in each layer."""
        self.ssm = [torch.zeros(self.E, self.N, dtype=DTYPE) for _ in range(self.num_layers)]
        self.conv = [torch.zeros(self.K - 1, self.E, dtype=DTYPE) for _ in range(self.num_layers)]

    def step(self, token):
        """Advance the states by one token; returns the logits [V] for the token that follows."""
        embeddings = self.w["backbone.embeddings.weight"]
        residual = embeddings[token]
        states = []  # h_t^0 .. h_t^{l-1} of this time step, each before its own fusion
        for l in range(self.num_layers):
            x = rms_norm(residual, self.w[f"backbone.layers.{l}.norm.weight"], self.eps)
            residual = residual + self.mixer(l, x, states)
        x = rms_norm(residual, self.w["backbone.norm_f.weight"], self.eps)
        head = embeddings if self.config["tie_word_embeddings"] else self.w["lm_head.weight"]
        return head @ x

    def mixer(self, l, x, states):
        """One layer at one step. x [D] is normalised; appends h_t^l to `states`."""
        w = lambda name: self.w.get(f"backbone.layers.{l}.mixer.{name}")
        projected = w("in_proj.weight") @ x
        if w("in_proj.bias") is not None:
            projected = projected + w("in_proj.bias")
        u_raw, z = projected.split(self.E)

        window = torch.cat([self.conv[l], u_raw[None]])  # [K,E], this step last
        self.conv[l] = window[1:]
        u = (window * w("conv1d.weight")[:, 0].T).sum(0)
        if w("conv1d.bias") is not None:
            u = u + w("conv1d.bias")
        u = F.silu(u)

        delta, B, C = (w("x_proj.weight") @ u).split([self.R, self.N, self.N])
        delta = F.softplus(w("dt_proj.weight") @ delta + w("dt_proj.bias"))
        A = -torch.exp(w("A_log"))
        h = torch.exp(delta[:, None] * A) * self.ssm[l] + (delta * u)[:, None] * B
        self.ssm[l] = h  # what is carried has nothing fused into it

        fused = h
        for gate, shallower in zip(self.gates(l, x), reversed(states)):
            fused = fused + gate[:, None] * shallower
        states.append(h)

        out = w("out_proj.weight") @ ((fused @ C + w("D") * u) * F.silu(z))
        return out if w("out_proj.bias") is None else out + w("out_proj.bias")

    def gates(self, l, x):
        """G_1 .. G_min(m,l), each [E], for layers l-1, l-2, ...; fc2 with E rows is one gate shared by all links."""
        links = min(self.m, l)
        if links == 0:
            return []
        fc1 = self.w[f"backbone.layers.{l}.mixer.select.fc1.weight"]
        fc2 = self.w[f"backbone.layers.{l}.mixer.select.fc2.weight"]
        gates = F.silu(fc2 @ F.silu(fc1 @ x)).split(self.E)
        return list(gates) if len(gates) == links else list(gates) * links

    def forward(self, tokens):
        """Logits [T,V] of a whole sequence, continuing from the present state."""
        return torch.stack([self.step(token) for token in tokens])


def rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean() + eps) * weight
