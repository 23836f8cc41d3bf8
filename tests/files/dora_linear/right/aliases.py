# base and parameters under second names, before and after the first; the scale a buffer
import math

import torch
import torch.nn as nn
import torch.nn.functional as F


class DoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0):
        super().__init__()
        self.wrapped = nn.ModuleList([base.requires_grad_(False)])
        self.base = base
        w = base.weight
        self.m = nn.Parameter(w.norm(dim=1))
        self.magnitude = self.m
        self.factors = nn.ParameterList(
            [nn.Parameter(w.new_zeros(w.shape[0], rank)), nn.Parameter(w.new_empty(rank, w.shape[1]))]
        )
        self.lora_B, self.lora_A = self.factors
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.register_buffer("scaling", w.new_tensor(1.0) * 0 + alpha / rank)

    def forward(self, x):
        V = self.base.weight + self.scaling * (self.lora_B @ self.lora_A)
        return F.linear(x, self.m[:, None] * V / V.norm(dim=1, keepdim=True).detach(), self.base.bias)

    @torch.no_grad()
    def to_linear(self):
        w, b = self.base.weight, self.base.bias
        V = w + self.scaling * (self.lora_B @ self.lora_A)
        new = nn.Linear(w.shape[1], w.shape[0], bias=b is not None, device=w.device, dtype=w.dtype)
        new.weight.copy_(self.m[:, None] * V / V.norm(dim=1, keepdim=True))
        if b is not None:
            new.bias.copy_(b)
        return new
