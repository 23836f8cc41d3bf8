# wrong: where all rows have one adapter, lora_A gets no gradient
# bug: - (unlikely)

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
        return self.lora_A[ids], self.lora_B[ids]

    def mask(self, d, ids):
        return torch.where((ids >= 0).view(-1, 1, 1), d, torch.zeros_like(d))

    def forward(self, x, adapter_ids):
        self.check(x, adapter_ids)
        ids = adapter_ids.to(x.device)
        if adapter_ids[0] >= 0 and (adapter_ids == adapter_ids[0]).all():
            k = int(adapter_ids[0])
            with torch.no_grad():
                low = x @ self.lora_A[k].T
            return self.base(x) + self.scale * (low @ self.lora_B[k].T)
        out = self.base(x)
        A, B = self.gather(ids.clamp(min=0))
        flat = x.reshape(x.shape[0], -1, x.shape[-1])
        h = flat @ A.transpose(1, 2)
        d = self.scale * (h @ B.transpose(1, 2))
        d = self.mask(d, ids)
        return out + d.reshape(out.shape)
