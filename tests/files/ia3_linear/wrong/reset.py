# wrong: base re-initialised
# bug: - (unlikely)
import torch
import torch.nn as nn
import torch.nn.functional as F


class IA3Linear(nn.Module):
    def __init__(self, base):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError(f"base must be an nn.Linear, not {type(base).__name__}")
        self.base = base
        base.reset_parameters()
        base.weight.requires_grad_(False)
        if base.bias is not None:
            base.bias.requires_grad_(False)
        w = base.weight
        self.scale = nn.Parameter(torch.ones(base.out_features, device=w.device, dtype=w.dtype))

    def forward(self, x):
        y = self.base(x)
        return y * self.scale

    @torch.no_grad()
    def to_linear(self):
        w, b, s = self.base.weight, self.base.bias, self.scale
        new = nn.Linear(w.shape[1], w.shape[0], bias=b is not None, device=w.device, dtype=w.dtype)
        new.weight.copy_(w * s[:, None])
        if b is not None:
            new.bias.copy_(b * s)
        return new
