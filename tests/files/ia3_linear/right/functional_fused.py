"""One fused F.linear with a scaled weight and bias."""
import torch
import torch.nn.functional as F
from torch import nn


class IA3Linear(nn.Module):
    def __init__(self, base):
        if not isinstance(base, nn.Linear):
            raise TypeError("base has to be an nn.Linear")
        super().__init__()
        self.base = base
        for p in base.parameters():
            p.requires_grad = False
        self.scale = nn.Parameter(torch.ones_like(base.weight[:, 0]))

    def forward(self, x):
        bias = self.base.bias * self.scale if self.base.bias is not None else None
        return F.linear(x, self.base.weight * self.scale.unsqueeze(1), bias)

    def to_linear(self):
        import copy
        new = copy.deepcopy(self.base)
        new.weight = nn.Parameter((self.base.weight * self.scale[:, None]).detach())
        if new.bias is not None:
            new.bias = nn.Parameter((self.base.bias * self.scale).detach())
        return new
