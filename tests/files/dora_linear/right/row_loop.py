# one output after the other, each with the norm of its own row
import torch
from torch import nn


class DoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0):
        super().__init__()
        self.base = base.requires_grad_(False)
        w = base.weight
        self.lora_A = nn.Parameter(nn.init.normal_(w.new_empty(rank, w.shape[1]), std=0.02))
        self.lora_B = nn.Parameter(w.new_zeros(w.shape[0], rank))
        self.magnitude = nn.Parameter(torch.stack([row.norm() for row in w]))
        self.scale = alpha / rank

    def rows(self):
        for i, m in enumerate(self.magnitude):
            v = self.base.weight[i] + self.scale * self.lora_B[i] @ self.lora_A
            yield m * v / v.detach().norm()

    def forward(self, x):
        out = torch.stack([(x * row).sum(-1) for row in self.rows()], dim=-1)
        return out if self.base.bias is None else out + self.base.bias

    def to_linear(self):
        w, b = self.base.weight, self.base.bias
        new = nn.Linear(w.shape[1], w.shape[0], b is not None, w.device, w.dtype)
        with torch.no_grad():
            for i, row in enumerate(self.rows()):
                new.weight[i] = row
            if b is not None:
                new.bias.copy_(b)
        return new
