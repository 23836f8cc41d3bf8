"""As in MixLoRA: the softmax over all, topk, and division by the sum."""
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
        flat = x.reshape(-1, x.shape[-1])
        probs = F.softmax(self.router(flat), dim=1)
        weights, picked = torch.topk(probs, self.k, dim=-1)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        out = torch.zeros(flat.shape[0], self.lora_B.shape[1], dtype=x.dtype, device=x.device)
        for e in range(self.n):
            token, place = torch.where(picked == e)
            y = flat[token] @ self.lora_A[e].T @ self.lora_B[e].T
            out = out.index_add(0, token, y * weights[token, place, None])
        return self.base(x) + self.scaling * out.reshape(*x.shape[:-1], -1)
