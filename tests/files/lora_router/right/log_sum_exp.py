"""Gates by logsumexp of the chosen; the scale folded into them."""
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
        kept, idx = z.sort(dim=-1, descending=True)
        kept, idx = kept[..., : self.k], idx[..., : self.k]
        gates = torch.exp(kept - torch.logsumexp(kept, dim=-1, keepdim=True)) * self.scaling
        h = torch.einsum("...i,nri->...nr", x, self.lora_A)
        y = torch.einsum("...nr,nor->...no", h, self.lora_B)
        y = y.gather(-2, idx[..., None].expand(*idx.shape, y.shape[-1]))
        return self.base(x) + torch.einsum("...k,...ko->...o", gates, y)
