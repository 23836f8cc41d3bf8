"""A router that starts at zero, and a sparse loop over the adapters that are used."""
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
        nn.init.zeros_(self.router.weight)

    def forward(self, x):
        flat = x.flatten(0, -2) if x.dim() > 1 else x[None]
        top = self.router(flat).topk(self.k, dim=1)
        gates = top.values.softmax(dim=1)
        rows = self.base(flat)
        if x.is_meta:
            return rows.reshape(*x.shape[:-1], -1)
        for e in top.indices.unique().tolist():
            hit = top.indices == e
            gate = (gates * hit).sum(1)
            mine = hit.any(1).nonzero(as_tuple=True)[0]
            part = (flat[mine] @ self.lora_A[e].mT) @ self.lora_B[e].mT
            rows = rows.index_add(0, mine, part * gate[mine, None] * self.scaling)
        return rows.reshape(*x.shape[:-1], rows.shape[-1])
