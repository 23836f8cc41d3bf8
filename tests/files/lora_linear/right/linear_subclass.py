import torch
import torch.nn as nn
import torch.nn.functional as F


class LoRALinear(nn.Linear):
    """Is an nn.Linear itself, whose weight and bias are read from the layer it wraps."""

    def __init__(self, base, rank=8, alpha=16.0, dropout=0.0):
        nn.Module.__init__(self)
        if not isinstance(base, nn.Linear):
            raise TypeError("base: nn.Linear wanted")
        if rank < 1:
            raise ValueError("rank: at least 1 wanted")
        self.in_features, self.out_features = base.in_features, base.out_features
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(torch.empty_like(base.weight[:1]).repeat(rank, 1))
        self.lora_B = nn.Parameter(torch.zeros_like(base.weight[:, :1]).repeat(1, rank))
        nn.init.xavier_normal_(self.lora_A)
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.merged = False

    @property
    def weight(self):
        return self.base.weight

    @property
    def bias(self):
        return self.base.bias

    def forward(self, x):
        y = super().forward(x)
        if self.merged:
            return y
        return y + F.linear(F.linear(self.dropout(x), self.lora_A), self.lora_B) * self.scale

    def delta_weight(self):
        return (self.lora_A.T @ self.lora_B.T).T * self.scale

    def _shift(self, sign):
        with torch.no_grad():
            self.weight.add_(self.delta_weight(), alpha=sign)

    def merge(self):
        if not self.merged:
            self._shift(+1)
            self.merged = True

    def unmerge(self):
        if self.merged:
            self._shift(-1)
            self.merged = False
