# Prefix and content apart, joined by their log-sum-exps.

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

    def forward(self, x, causal=False):
        B, L, d = x.shape
        P = self.prefix_k.shape[1]
        q = self.split(self.q_proj(x))
        k = self.split(self.k_proj(x))
        v = self.split(self.v_proj(x))
        pk, pv = self.prefix_k, self.prefix_v
        scale = self.d_head**-0.5
        ahead = q @ pk.mT * scale
        scores = q @ k.mT * scale
        if causal:
            hidden = torch.ones(L, L, dtype=torch.bool, device=x.device).triu(1)
            scores = scores.masked_fill(hidden, -torch.inf)
        mixed = scores.softmax(-1) @ v
        if P:
            share = torch.sigmoid(ahead.logsumexp(-1, keepdim=True) - scores.logsumexp(-1, keepdim=True))
            mixed = torch.lerp(mixed, ahead.softmax(-1) @ pv, share)
        return self.o_proj(mixed.transpose(1, 2).reshape(B, L, d))
