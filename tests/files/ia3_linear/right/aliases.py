# layer and scale under second names, before and after the first
import torch
import torch.nn as nn


class IA3Linear(nn.Module):
    def __init__(self, base):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError(f"base must be an nn.Linear, not {type(base).__name__}")
        self.layers = nn.ModuleList([base])
        self.base = base.requires_grad_(False)
        self.inner = base
        self.gain = nn.Parameter(base.weight.new_ones(base.out_features))
        self.scale = self.gain
        self.all = nn.ParameterList([self.scale])

    def forward(self, x):
        return self.base(x) * self.scale

    @torch.no_grad()
    def to_linear(self):
        w, b, s = self.base.weight, self.base.bias, self.scale
        new = nn.Linear(w.shape[1], w.shape[0], bias=b is not None, device=w.device, dtype=w.dtype)
        new.weight.copy_(w * s[:, None])
        if b is not None:
            new.bias.copy_(b * s)
        return new
