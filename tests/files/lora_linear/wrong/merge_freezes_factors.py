# wrong: merge() freezes the factors, and unmerge() does not thaw them.
# bug: - (unlikely)
import math

import torch
from torch import nn
from torch.nn import functional as F


class LoRALinear(nn.Module):
    def __init__(self, base: nn.Linear, rank: int = 8, alpha: float = 16.0, dropout: float = 0.0):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError(f"base is {type(base).__name__}, expected nn.Linear")
        if rank < 1:
            raise ValueError(f"rank is {rank}, expected 1 or more")
        factory = {"device": base.weight.device, "dtype": base.weight.dtype}
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features, **factory))
        self.lora_B = nn.Parameter(torch.empty(base.out_features, rank, **factory))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B)
        self.rank = rank
        self.alpha = alpha
        self.scale = alpha / rank
        self.p = dropout
        self.merged = False

    def forward(self, x):
        y = F.linear(x, self.base.weight, self.base.bias)
        if not self.merged:
            z = F.dropout(x, self.p, self.training)
            z = F.linear(z, self.lora_A)
            z = F.linear(z, self.lora_B)
            y = y + z * self.scale
        return y

    def delta_weight(self):
        return torch.mm(self.lora_B, self.lora_A) * self.scale

    @torch.no_grad()
    def merge(self):
        if not self.merged:
            self.base.weight.add_(self.delta_weight())
            self.lora_A.requires_grad_(False)
            self.lora_B.requires_grad_(False)
            self.merged = True

    @torch.no_grad()
    def unmerge(self):
        if self.merged:
            self.base.weight.sub_(self.delta_weight())
            self.merged = False
