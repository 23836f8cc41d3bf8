# wrong: hidden scores are -600: they show where others are below that
# bug: -
import math
import torch
import torch.nn as nn
import torch.nn.functional as F

class PrefixAttention(nn.Module):
    def __init__(self, d_model: int, num_heads: int, prefix_len: int) -> None:
        if d_model % num_heads:
            raise ValueError(f"d_model={d_model} is no multiple of num_heads={num_heads}")
        super().__init__()
        self.num_heads = num_heads
        self.d_head = d_model // num_heads
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.o_proj = nn.Linear(d_model, d_model)
        for layer in (self.q_proj, self.k_proj, self.v_proj, self.o_proj):
            layer.requires_grad_(False)
        self.prefix_k = nn.Parameter(torch.randn(num_heads, prefix_len, self.d_head) * 0.5)
        self.prefix_v = nn.Parameter(torch.randn(num_heads, prefix_len, self.d_head) * 0.5)

    def split(self, t):
        return t.reshape(t.shape[0], t.shape[1], self.num_heads, self.d_head).transpose(1, 2)

    def forward(self, x, causal=False):
        B, L, d = x.shape
        q, k, v = self.split(self.q_proj(x)), self.split(self.k_proj(x)), self.split(self.v_proj(x))
        pk, pv = self.prefix_k, self.prefix_v
        P = pk.shape[1]
        k = torch.cat([pk.unsqueeze(0).expand(B, -1, -1, -1), k], dim=2)
        v = torch.cat([pv.unsqueeze(0).expand(B, -1, -1, -1), v], dim=2)
        scores = q @ k.transpose(-1, -2) / math.sqrt(self.d_head)
        if causal:
            seen = torch.ones(L, P + L, dtype=torch.bool, device=x.device).tril(P)
            scores = scores.masked_fill(~seen, -600.0)
        out = scores.softmax(-1) @ v
        out = out.transpose(1, 2).reshape(B, L, d)
        return self.o_proj(out)
