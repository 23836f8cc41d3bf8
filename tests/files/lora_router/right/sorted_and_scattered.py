"""argsort in place of topk, and a mask by scatter."""
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
        z = self.router(x)
        order = z.argsort(dim=-1, descending=True)[..., : self.k]
        mask = torch.zeros_like(z).scatter_(-1, order, 1.0).bool()
        e = torch.exp(z - z.amax(-1, keepdim=True)) * mask
        gates = e / e.sum(-1, keepdim=True)
        update = 0
        for n in range(self.n):
            update = update + gates[..., n : n + 1] * F.linear(F.linear(x, self.lora_A[n]), self.lora_B[n])
        return F.linear(x, self.base.weight, self.base.bias) + update * self.scaling
