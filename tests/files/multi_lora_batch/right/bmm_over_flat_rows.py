"""Written out for a batch of matrices; bmm and baddbmm; ids checked as Python numbers."""
import math

import torch
from torch import nn


class MultiLoRALinear(nn.Module):
    def __init__(self, base, num_adapters, rank=8, alpha=16.0):
        super().__init__()
        self.base = base
        for p in base.parameters():
            p.requires_grad = False
        kw = dict(device=base.weight.device, dtype=base.weight.dtype)
        self.lora_A = nn.Parameter(torch.empty(num_adapters, rank, base.in_features, **kw))
        self.lora_B = nn.Parameter(torch.zeros(num_adapters, base.out_features, rank, **kw))
        for a in self.lora_A:
            nn.init.kaiming_uniform_(a, a=math.sqrt(5))
        self.scale = alpha / rank

    def forward(self, x, adapter_ids):
        B = x.size(0)
        if len(adapter_ids) != B:
            raise ValueError(f"len(adapter_ids) is {len(adapter_ids)}, not {B}")
        numbers = adapter_ids.tolist()
        if min(numbers) < -1 or max(numbers) >= self.lora_A.size(0):
            raise IndexError(f"adapter_ids out of range: {numbers}")
        ids = adapter_ids.to(x.device)
        mask = ids.ge(0).to(x.dtype).reshape(B, 1, 1)
        safe = ids.clamp(min=0)
        flat = x.reshape(B, -1, x.size(-1))
        low = torch.bmm(flat * mask, self.lora_A[safe].transpose(1, 2))
        base = self.base(flat)
        out = torch.baddbmm(base, low, self.lora_B[safe].transpose(1, 2), alpha=self.scale)
        return out.reshape(*x.shape[:-1], -1)
