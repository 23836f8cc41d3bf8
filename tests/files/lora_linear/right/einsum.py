import torch
from torch import einsum, nn


class LoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0, dropout=0.0):
        super().__init__()
        if rank < 1:
            raise ValueError("rank < 1")
        if not isinstance(base, nn.Linear):
            raise TypeError("expected nn.Linear for base")
        W = base.weight
        self.lora_A = nn.Parameter(torch.randn(rank, W.size(1), dtype=W.dtype, device=W.device) * 0.02)
        self.lora_B = nn.Parameter(torch.zeros(W.size(0), rank, dtype=W.dtype, device=W.device))
        self.dropout = nn.Dropout(dropout)
        self.base = base
        self.base.requires_grad_(False)
        self.scale = alpha / rank
        self.merged = False

    def forward(self, x):
        plain = einsum("...i,oi->...o", x, self.base.weight)
        if self.base.bias is not None:
            plain = plain + self.base.bias
        if self.merged:
            return plain
        return plain + self.scale * einsum("...i,ri,or->...o", self.dropout(x), self.lora_A, self.lora_B)

    def delta_weight(self):
        return self.scale * einsum("or,ri->oi", self.lora_B, self.lora_A)

    def merge(self):
        if self.merged:
            return
        self.base.weight.data.add_(self.delta_weight().data)
        self.merged = True

    def unmerge(self):
        if not self.merged:
            return
        self.base.weight.data.sub_(self.delta_weight().data)
        self.merged = False
