import torch
from torch import nn
from torch.nn import functional as F


class LoRALinear(nn.Module):
    """Flag and scale are buffers, hence further keys of the state dict."""

    def __init__(self, base, rank=8, alpha=16.0, dropout=0.0):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError("base must be nn.Linear")
        if rank < 1:
            raise ValueError("rank must be > 0")
        self.base = base
        self.base.requires_grad_(False)
        self.register_buffer("merged", torch.tensor(False))
        self.register_buffer("scale", torch.tensor(alpha / rank, dtype=torch.float64))
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.normal_(self.lora_A, std=1 / rank)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        if self.merged:
            return self.base(x)
        update = F.linear(F.linear(self.dropout(x), self.lora_A), self.lora_B)
        return self.base(x) + update * self.scale

    def delta_weight(self):
        return (self.lora_B @ self.lora_A) * self.scale

    @torch.no_grad()
    def merge(self):
        if not self.merged:
            self.base.weight += self.delta_weight()
            self.merged.fill_(True)

    @torch.no_grad()
    def unmerge(self):
        if self.merged:
            self.base.weight -= self.delta_weight()
            self.merged.fill_(False)
