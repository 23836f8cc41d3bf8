# wrong: the scale minus one is added
# bug: scale-added
import torch
import torch.nn as nn
import torch.nn.functional as F


class IA3Linear(nn.Module):
    def __init__(self, base):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError(f"base must be an nn.Linear, got {type(base).__name__}")
        self.base = base
        for p in base.parameters():
            p.requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(base.out_features, device=base.weight.device, dtype=base.weight.dtype))

    def forward(self, x):
        return self.base(x) + self.scale - 1

    @torch.no_grad()
    def to_linear(self):
        b = self.base
        new = nn.Linear(b.in_features, b.out_features, bias=b.bias is not None, device=b.weight.device, dtype=b.weight.dtype)
        new.weight.copy_(b.weight * self.scale[:, None])
        if b.bias is not None:
            new.bias.copy_(b.bias * self.scale)
        return new
