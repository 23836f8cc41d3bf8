# A loop over the heads, weights cut into blocks.

import math

import torch
import torch.nn as nn
import torch.nn.functional as F


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
        pk, pv = self.prefix_k, self.prefix_v
        outputs = []
        for h in range(self.num_heads):
            block = slice(h * self.d_head, (h + 1) * self.d_head)
            q, k, v = (F.linear(x, m.weight[block], m.bias[block]) for m in (self.q_proj, self.k_proj, self.v_proj))
            k = torch.cat([pk[h].repeat(B, 1, 1), k], 1)
            v = torch.cat([pv[h].repeat(B, 1, 1), v], 1)
            scores = torch.bmm(q, k.mT) / math.sqrt(self.d_head)
            if causal:
                hidden = torch.ones_like(scores[0], dtype=torch.bool).triu(P + 1)
                scores = scores.masked_fill(hidden, float("-inf"))
            outputs.append(torch.bmm(scores.softmax(-1), v))
        return self.o_proj(torch.cat(outputs, -1))
