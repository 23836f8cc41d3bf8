# wrong: what was gathered under no_grad is used in training
# bug: kept-between-calls

import torch
import torch.nn as nn
import torch.nn.functional as F


class MultiLoRALinear(nn.Module):
    def __init__(self, base, num_adapters, rank=8, alpha=16.0):
        super().__init__()
        self.base = base
        for p in base.parameters():
            p.requires_grad_(False)
        self.n = num_adapters
        kw = dict(device=base.weight.device, dtype=base.weight.dtype)
        self.lora_A = nn.Parameter(torch.randn(num_adapters, rank, base.in_features, **kw) * 0.02)
        self.lora_B = nn.Parameter(torch.zeros(num_adapters, base.out_features, rank, **kw))
        self.scale = alpha / rank

    def check(self, x, ids):
        if ids.shape[0] != x.shape[0]:
            raise ValueError("adapter_ids must have one id per row")
        if (ids < -1).any() or (ids >= self.n).any():
            raise IndexError("adapter_ids out of range")

    def gather(self, ids):
        key = ids.tolist(), self.lora_A._version, self.lora_B._version
        if getattr(self, "key", None) != key:
            self.key, self.hit = key, (self.lora_A[ids], self.lora_B[ids])
        return self.hit

    def mask(self, d, ids):
        return torch.where((ids >= 0).view(-1, 1, 1), d, torch.zeros_like(d))

    def forward(self, x, adapter_ids):
        self.check(x, adapter_ids)
        ids = adapter_ids.to(x.device)
        out = self.base(x)
        A, B = self.gather(adapter_ids.clamp(min=0))
        flat = x.reshape(x.shape[0], -1, x.shape[-1])
        h = flat @ A.transpose(1, 2)
        d = self.scale * (h @ B.transpose(1, 2))
        d = self.mask(d, ids)
        return out + d.reshape(out.shape)
