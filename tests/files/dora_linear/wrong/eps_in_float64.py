# wrong: 1e-8 is added to the norm, which shows in float64
# bug: norm-with-eps
import math

import torch
import torch.nn as nn
import torch.nn.functional as F


class DoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0):
        super().__init__()
        self.base = base.requires_grad_(False)
        w = base.weight
        self.lora_A = nn.Parameter(w.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(w.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.magnitude = nn.Parameter(w.norm(dim=1))
        self.scale = alpha / rank

    def weight(self):
        V = self.base.weight + self.scale * (self.lora_B @ self.lora_A)
        norm = V.norm(dim=1, keepdim=True).detach() + 1e-8
        return self.magnitude[:, None] * V / norm

    def forward(self, x):
        return F.linear(x, self.weight(), self.base.bias)

    @torch.no_grad()
    def to_linear(self):
        w, b = self.base.weight, self.base.bias
        new = nn.Linear(w.shape[1], w.shape[0], bias=b is not None, device=w.device, dtype=w.dtype)
        new.weight.copy_(self.weight())
        if b is not None:
            new.bias.copy_(b)
        return new
