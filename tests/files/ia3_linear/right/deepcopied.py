# to_linear() scales a deep copy of the base; the scale is a property of a folded vector
import copy

import torch
import torch.nn as nn


class IA3Linear(nn.Module):
    def __init__(self, base):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError(f"base must be an nn.Linear, not {type(base).__name__}")
        self.base = base.requires_grad_(False)
        self.scale = nn.Parameter(base.weight.new_ones(base.out_features))

    def forward(self, x):
        return self.base(x) * self.scale

    @torch.no_grad()
    def to_linear(self):
        w, b, s = self.base.weight, self.base.bias, self.scale
        new = copy.deepcopy(self.base)
        new.weight = nn.Parameter((w.T * s).T, requires_grad=False)
        if b is not None:
            new.bias.mul_(s)
        return new
