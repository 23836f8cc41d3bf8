"""The full update of every adapter is made, and mixed for each token."""
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
        deltas = self.scaling * (self.lora_B @ self.lora_A)  # (n, out, in)
        z = self.router(x)
        idx = z.topk(self.k).indices
        gates = torch.zeros_like(z).scatter(-1, idx, z.gather(-1, idx).softmax(-1))
        y = torch.matmul(deltas, x[..., None, :, None]).squeeze(-1)
        return self.base(x) + (gates.unsqueeze(-2) @ y).squeeze(-2)
