import math

import torch
from torch import nn


class LoRALinear(nn.Module):
    """Flattens the leading dimensions, lets addmm do the sum, and restores them."""

    def __init__(self, base: nn.Linear, rank: int = 8, alpha: float = 16.0, dropout: float = 0.0):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError(f"base is no nn.Linear but {base!r}")
        if not rank >= 1:
            raise ValueError(f"rank={rank!r} is below 1")
        self.base = base
        self.base.requires_grad_(False)
        self.scale = float(alpha) / float(rank)
        self.merged = False
        self.dropout = torch.nn.Dropout(dropout)
        self.lora_A = nn.Parameter(
            torch.empty((rank, base.in_features), dtype=base.weight.dtype, device=base.weight.device)
        )
        self.lora_B = nn.Parameter(
            torch.empty((base.out_features, rank), dtype=base.weight.dtype, device=base.weight.device)
        )
        self.reset_parameters()

    def reset_parameters(self):
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B)

    def forward(self, x):
        shape = x.shape[:-1]
        rows = x.reshape(-1, x.shape[-1])
        if self.base.bias is None:
            out = torch.mm(rows, self.base.weight.t())
        else:
            out = torch.addmm(self.base.bias, rows, self.base.weight.t())
        if not self.merged:
            low = torch.mm(self.dropout(rows), self.lora_A.t())
            out = torch.addmm(out, low, self.lora_B.t(), alpha=self.scale)
        return out.reshape(*shape, self.base.out_features)

    def delta_weight(self):
        zero = self.lora_B.new_zeros(self.base.out_features, self.base.in_features)
        return torch.addmm(zero, self.lora_B, self.lora_A, alpha=self.scale)

    def merge(self):
        if self.merged:
            return None
        with torch.no_grad():
            self.base.weight.addmm_(self.lora_B, self.lora_A, alpha=self.scale)
        self.merged = True

    def unmerge(self):
        if not self.merged:
            return None
        with torch.no_grad():
            self.base.weight.addmm_(self.lora_B, self.lora_A, alpha=-self.scale)
        self.merged = False
