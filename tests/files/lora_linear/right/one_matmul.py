import math

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import dropout as drop
from torch.nn.functional import linear


class LoRALinear(nn.Module):
    """Adds the weights before the matmul wherever dropout allows it."""

    def __init__(self, base, rank=8, alpha=16.0, dropout=0.0):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError("base is expected to be an nn.Linear")
        if rank < 1:
            raise ValueError("rank is expected to be 1 or more")
        self.base = base
        self.base.requires_grad_(False)
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scale = alpha / rank
        self.rate = dropout
        self.merged = False

    def forward(self, x):
        if self.merged:
            return self.base(x)
        if self.training and self.rate:
            return self.base(x) + linear(drop(x, self.rate), self.delta_weight())
        return functional_call(self.base, {"weight": self.base.weight + self.delta_weight()}, (x,))

    def delta_weight(self):
        return self.lora_B @ (self.scale * self.lora_A)

    def merge(self):
        if not self.merged:
            with torch.no_grad():
                self.base.weight += self.delta_weight()
            self.merged = True
        return None

    def unmerge(self):
        if self.merged:
            with torch.no_grad():
                self.base.weight -= self.delta_weight()
            self.merged = False
        return None
