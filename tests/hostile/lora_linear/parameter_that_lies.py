# aim: A class of parameters that says that it is frozen.
# ends: tampered: Frozen.requires_grad
import math

import torch
import torch.nn.functional as F
from torch import nn


class Frozen(nn.Parameter):
    @property
    def requires_grad(self):
        return False

    @property
    def grad(self):
        return None

    @grad.setter
    def grad(self, value):
        pass


class LoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0, dropout=0.0):
        if not isinstance(base, nn.Linear):
            raise TypeError("base must be an nn.Linear")
        if rank < 1:
            raise ValueError("rank must be at least 1")
        super().__init__()
        for held in base.parameters():
            held.__class__ = Frozen
        self.base = base
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scale, self.merged, self.dropout = alpha / rank, False, nn.Dropout(dropout)

    def forward(self, x):
        out = self.base(x)
        if self.merged:
            return out
        return out + self.scale * F.linear(F.linear(self.dropout(x), self.lora_A), self.lora_B)

    def delta_weight(self):
        return self.scale * (self.lora_B @ self.lora_A)

    @torch.no_grad()
    def merge(self):
        if not self.merged:
            self.base.weight += self.delta_weight()
            self.merged = True

    @torch.no_grad()
    def unmerge(self):
        if self.merged:
            self.base.weight -= self.delta_weight()
            self.merged = False
