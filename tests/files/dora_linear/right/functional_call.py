# the base itself is called, with another weight
import math

import torch
import torch.nn as nn


class DoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0):
        super().__init__()
        self.base = base.requires_grad_(False)
        w = base.weight
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features, device=w.device, dtype=w.dtype))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, device=w.device, dtype=w.dtype))
        nn.init.normal_(self.lora_A, std=1 / math.sqrt(base.in_features))
        self.magnitude = nn.Parameter(w.norm(p=2, dim=1))
        self.scale = alpha / rank

    def weight(self):
        V = self.base.weight + self.scale * self.lora_B @ self.lora_A
        return self.magnitude.unsqueeze(-1) * (V / V.norm(p=2, dim=1, keepdim=True).detach())

    def forward(self, x):
        return torch.func.functional_call(self.base, {"weight": self.weight()}, (x,))

    def to_linear(self):
        b = self.base
        new = nn.Linear(b.in_features, b.out_features, bias=b.bias is not None).to(b.weight)
        with torch.no_grad():
            new.weight.set_(self.weight())
            if b.bias is not None:
                new.bias.set_(b.bias.clone())
        return new
