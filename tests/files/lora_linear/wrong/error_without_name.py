# wrong: The message does not name the argument rank.
# bug: error-without-name
import torch
import torch.nn as nn


class LoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0, dropout=0.0):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError("base must be nn.Linear")
        if rank < 1:
            raise ValueError("must be >= 1")
        self.base = base
        for p in self.base.parameters():
            p.requires_grad = False
        w = base.weight
        self.lora_A = nn.Parameter(torch.randn(rank, w.shape[1], device=w.device, dtype=w.dtype) * 0.02)
        self.lora_B = nn.Parameter(torch.zeros(w.shape[0], rank, device=w.device, dtype=w.dtype))
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.merged = False

    def forward(self, x):
        if self.merged:
            return self.base(x)
        return self.base(x) + self.scale * (self.dropout(x) @ self.lora_A.T @ self.lora_B.T)

    def delta_weight(self):
        return self.scale * (self.lora_B @ self.lora_A)

    def merge(self):
        if self.merged:
            return
        self.base.weight.data += self.delta_weight().data
        self.merged = True

    def unmerge(self):
        if not self.merged:
            return
        self.base.weight.data -= self.delta_weight().data
        self.merged = False
