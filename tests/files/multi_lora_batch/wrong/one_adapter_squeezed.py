# wrong: with one adapter the dimension of the rows is squeezed
# bug: size-of-one

import math
import torch
import torch.nn as nn
import torch.nn.functional as F


class MultiLoRALinear(nn.Module):
    def __init__(self, base, num_adapters, rank=8, alpha=16.0):
        super().__init__()
        self.base = base
        for p in base.parameters():
            p.requires_grad_(False)
        kw = dict(device=base.weight.device, dtype=base.weight.dtype)
        self.num_adapters = num_adapters
        self.rank = rank
        self.scale = alpha / rank
        self.lora_A = nn.Parameter(torch.randn(num_adapters, rank, base.in_features, **kw) * 0.02)
        self.lora_B = nn.Parameter(torch.zeros(num_adapters, base.out_features, rank, **kw))

    def _check(self, x, adapter_ids):
        if adapter_ids.numel() != x.shape[0]:
            raise ValueError("adapter_ids must have one id per row")
        if adapter_ids.numel() and (
            adapter_ids.min() < -1 or adapter_ids.max() >= self.num_adapters
        ):
            raise IndexError("adapter_ids out of range")

    def forward(self, x, adapter_ids):
        self._check(x, adapter_ids)
        adapter_ids = adapter_ids.to(x.device)
        out = self.base(x)
        mask = adapter_ids >= 0
        safe = torch.where(mask, adapter_ids, torch.zeros_like(adapter_ids))
        A = self.lora_A[safe]
        B = self.lora_B[safe]
        flat = x.reshape(x.shape[0], -1, x.shape[-1])
        A = A if len(self.lora_A) > 1 else A.squeeze(0)
        h = torch.bmm(flat, A.transpose(1, 2))
        d = torch.bmm(h, B.transpose(1, 2)) * self.scale
        d = d * mask.to(d.dtype).view(-1, 1, 1)
        return out + d.reshape(out.shape)
