"""A combine tensor from one-hot vectors; the base inside the mixture."""
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
        gates = values.softmax(dim=-1)
        hot = F.one_hot(idx, self.n).to(x.dtype)  # (..., k, n)
        combine = (gates.unsqueeze(-1) * hot).sum(-2)
        each = self.base(x).unsqueeze(-2) + self.scaling * torch.einsum("...i,nri,nor->...no", x, self.lora_A, self.lora_B)
        return (combine.unsqueeze(-1) * each).sum(-2)
