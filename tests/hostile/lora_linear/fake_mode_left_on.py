# aim: Every tensor of the process is to be a fake one.
# ends: failed: scale-missing
import math
import torch
import torch.nn as nn
import torch.nn.functional as F


class LoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0, dropout=0.0):
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank must be >= 1, got {rank}")
        if not isinstance(base, nn.Linear):
            raise TypeError("base must be nn.Linear")
        self.base = base
        for p in base.parameters():
            p.requires_grad_(False)
        w = base.weight
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features, device=w.device, dtype=w.dtype))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, device=w.device, dtype=w.dtype))
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.merged = False
        self._kept = None

    def forward(self, x):
        y = self.base(x)
        if self.merged:
            return y
        return y + F.linear(F.linear(self.dropout(x), self.lora_A), self.lora_B)

    def delta_weight(self):
        return self.scale * self.lora_B @ self.lora_A

    @torch.no_grad()
    def merge(self):
        if self.merged:
            return
        self._kept = self.base.weight.detach().clone()
        self.base.weight += self.delta_weight()
        self.merged = True

    @torch.no_grad()
    def unmerge(self):
        if not self.merged:
            return
        self.base.weight.copy_(self._kept)
        self._kept = None
        self.merged = False


from torch._subclasses.fake_tensor import FakeTensorMode
FakeTensorMode().__enter__()
