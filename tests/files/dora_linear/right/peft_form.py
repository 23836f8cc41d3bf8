# base(x) plus what is missing to it, as in PEFT; the identity goes through the factors
import math

import torch
from torch import nn
from torch.nn import functional as F


class DoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0):
        super().__init__()
        self.base = base
        for p in base.parameters():
            p.requires_grad = False
        like = {"device": base.weight.device, "dtype": base.weight.dtype}
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features, **like))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, **like))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scaling = alpha / rank
        self.magnitude = nn.Parameter(torch.linalg.norm(base.weight.data, dim=1))

    def ratio(self):
        with torch.no_grad():
            V = self.base.weight + self.scaling * self.lora_B @ self.lora_A
            norm = torch.linalg.norm(V, dim=1)
        return self.magnitude / norm

    def forward(self, x):
        m = self.ratio()
        low = F.linear(F.linear(x, self.lora_A), self.lora_B)
        return self.base(x) + (m - 1) * F.linear(x, self.base.weight) + m * low * self.scaling

    @torch.no_grad()
    def to_linear(self):
        w, b = self.base.weight, self.base.bias
        new = nn.Linear(w.shape[1], w.shape[0], b is not None, w.device, w.dtype)
        new.weight.copy_(self.ratio()[:, None] * (w + self.scaling * self.lora_B @ self.lora_A))
        if b is not None:
            new.bias.copy_(b)
        return new
