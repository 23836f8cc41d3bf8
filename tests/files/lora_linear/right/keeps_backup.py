import torch
import torch.nn as nn


class LoRALinear(nn.Module):
    """Keeps the weight as it was at merge() and puts it back, bit for bit, at unmerge()."""

    def __init__(self, base, rank=8, alpha=16.0, dropout=0.0):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError("`base` must be nn.Linear")
        if rank < 1:
            raise ValueError("`rank` must be >= 1")
        self.base = base
        base.weight.requires_grad_(False)
        if base.bias is not None:
            base.bias.requires_grad_(False)
        self.scale = alpha / rank
        self.dropout = dropout
        self.register_buffer("original", None, persistent=False)
        self.lora_A = nn.Parameter(torch.randn(rank, base.in_features).to(base.weight) / rank)
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank).to(base.weight))

    @property
    def merged(self):
        return self.original is not None

    def forward(self, x):
        if self.merged:
            return self.base(x)
        z = nn.functional.dropout(x, p=self.dropout, training=self.training)
        return self.base(x) + (z @ self.lora_A.T @ self.lora_B.T) * self.scale

    def delta_weight(self):
        return self.scale * self.lora_B @ self.lora_A

    @torch.no_grad()
    def merge(self):
        if self.original is None:
            self.original = self.base.weight.clone()
            self.base.weight.copy_(self.original + self.delta_weight())

    @torch.no_grad()
    def unmerge(self):
        if self.original is not None:
            self.base.weight.copy_(self.original)
            self.original = None
