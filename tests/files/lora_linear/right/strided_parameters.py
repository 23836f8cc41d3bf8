import torch
from torch import nn


class LoRALinear(nn.Module):
    """Both factors are stored column by column: parameters that are not contiguous."""

    def __init__(self, base, rank=8, alpha=16.0, dropout=0.0):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError("base is not an nn.Linear")
        if rank < 1:
            raise ValueError("rank is below 1")
        kind = dict(device=base.weight.device, dtype=base.weight.dtype)
        a = torch.empty(base.in_features, rank, **kind)
        b = torch.zeros(rank, base.out_features, **kind)
        with torch.no_grad():
            a.normal_(0.0, 0.05)
        self.lora_A = nn.Parameter(a.T)
        self.lora_B = nn.Parameter(b.T)
        self.base = base
        self.base.requires_grad_(False)
        self.scale = alpha / rank
        self.drop = nn.Dropout(dropout)
        self.merged = False

    def branch(self, x):
        return self.drop(x) @ self.lora_A.mT @ self.lora_B.mT * self.scale

    def forward(self, x):
        return self.base(x) if self.merged else torch.add(self.base(x), self.branch(x))

    def delta_weight(self):
        return torch.mm(self.lora_B, self.lora_A).mul(self.scale)

    def merge(self):
        if not self.merged:
            with torch.inference_mode():
                self.base.weight += self.delta_weight()
        self.merged = True

    def unmerge(self):
        if self.merged:
            with torch.inference_mode():
                self.base.weight -= self.delta_weight()
        self.merged = False
