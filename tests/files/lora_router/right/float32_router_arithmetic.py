"""Logits and gates at least in float32, cast back at the end."""
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
        wide = torch.promote_types(x.dtype, torch.float32)
        z = F.linear(x.to(wide), self.router.weight.to(wide))
        top, idx = z.topk(self.k, dim=-1, sorted=False)
        gates = z.new_zeros(z.shape).scatter(-1, idx, top.softmax(-1)).to(x.dtype)
        h = torch.tensordot(x, self.lora_A, dims=([-1], [2]))  # (..., n, r)
        h = h * gates[..., None] * self.scaling
        return self.base(x) + torch.tensordot(h, self.lora_B.permute(0, 2, 1), dims=([-2, -1], [0, 1]))
