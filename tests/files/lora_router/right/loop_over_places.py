"""A loop over the k places, each with its own adapters."""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F


class RoutedLoRALinear(nn.Module):
    def __init__(self, base, num_adapters, rank=8, alpha=16.0, top_k=1):
        super().__init__()
        if top_k < 1 or top_k > num_adapters:
            raise ValueError(f"top_k={top_k} with {num_adapters} adapters")
        for p in base.parameters():
            p.requires_grad = False
        self.base = base
        kw = dict(device=base.weight.device, dtype=base.weight.dtype)
        self.router = nn.Linear(base.in_features, num_adapters, bias=False, **kw)
        self.lora_A = nn.Parameter(torch.randn(num_adapters, rank, base.in_features, **kw) / math.sqrt(base.in_features))
        self.lora_B = nn.Parameter(torch.zeros(num_adapters, base.out_features, rank, **kw))
        self.scaling, self.k, self.n = alpha / rank, top_k, num_adapters

    def forward(self, x):
        values, idx = self.router(x).topk(self.k, dim=-1)
        gates = torch.softmax(values, dim=-1)
        out = self.base(x)
        for j in range(self.k):
            A, B = self.lora_A[idx[..., j]], self.lora_B[idx[..., j]]
            low = (A * x.unsqueeze(-2)).sum(-1)
            out = out + self.scaling * gates[..., j : j + 1] * (B * low.unsqueeze(-2)).sum(-1)
        return out
