import math

import torch
from torch import nn


class Registry(type(nn.Module)):
    """A metaclass that keeps a list of what was defined."""

    known = []

    def __new__(mcls, name, bases, space, **kwargs):
        made = super().__new__(mcls, name, bases, space)
        mcls.known.append(name)
        return made


class Scaled:
    __slots__ = ()

    @property
    def scale(self):
        return self.alpha / self.lora_A.shape[0]


class Mergeable:
    __slots__ = ()

    def merge(self):
        self.fold(1)

    def unmerge(self):
        self.fold(0)

    def fold(self, target):
        step = target - int(self.merged)
        if step:
            with torch.no_grad():
                self.base.weight.add_(self.delta_weight(), alpha=step)
            self.merged = bool(target)


class Checked:
    def __init__(self, base, rank, *args, **kwargs):
        if not isinstance(base, nn.Linear):
            raise TypeError(f"base={base!r}")
        if rank < 1:
            raise ValueError(f"{rank=}")
        super().__init__(*args, **kwargs)


class LoRALinear(Scaled, Mergeable, Checked, nn.Module, metaclass=Registry):
    def __init__(self, base, rank=8, alpha=16.0, dropout=0.0):
        super().__init__(base, rank)
        self.base = base.requires_grad_(False)
        self.alpha = alpha
        self.merged = False
        self.dropout = nn.Dropout(dropout)
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def delta_weight(self):
        return self.scale * (self.lora_B @ self.lora_A)

    def forward(self, x):
        out = self.base(x)
        if self.merged:
            return out
        low = self.scale * (self.dropout(x) @ self.lora_A.T)
        return out + low @ self.lora_B.T
