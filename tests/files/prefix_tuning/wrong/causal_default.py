# wrong: causal by default
# bug: -

import math

import torch
import torch.nn as nn


class PrefixAttention(nn.Module):
    def __init__(self, d_model, num_heads, prefix_len):
        super().__init__()
        if d_model % num_heads:
            raise ValueError(f"d_model={d_model} is no multiple of num_heads={num_heads}")
        self.num_heads, self.d_head = num_heads, d_model // num_heads
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.o_proj = nn.Linear(d_model, d_model)
        self.requires_grad_(False)
        self.prefix_k = nn.Parameter(0.02 * torch.randn(num_heads, prefix_len, self.d_head))
        self.prefix_v = nn.Parameter(0.02 * torch.randn(num_heads, prefix_len, self.d_head))

    def split(self, t):
        return t.view(t.shape[0], t.shape[1], self.num_heads, self.d_head).transpose(1, 2)

    def forward(self, x, causal=True):
        B, L, d = x.shape
        P = self.prefix_k.shape[1]
        q = self.split(self.q_proj(x))
        k = self.split(self.k_proj(x))
        v = self.split(self.v_proj(x))
        pk, pv = self.prefix_k, self.prefix_v
        k = torch.cat([pk.expand(B, -1, -1, -1), k], dim=2)
        v = torch.cat([pv.expand(B, -1, -1, -1), v], dim=2)
        scores = q @ k.transpose(-2, -1) / math.sqrt(self.d_head)
        if causal:
            hidden = torch.ones(L, P + L, dtype=torch.bool, device=x.device).triu(P + 1)
            scores = scores.masked_fill(hidden, -torch.inf)
        mixed = scores.softmax(-1) @ v
        return self.o_proj(mixed.transpose(1, 2).reshape(B, L, d))
