import torch
from torch import nn
import torch.nn.functional as F


class Bottle(nn.Module):
    """My own adapter."""

    def __init__(self, d, r):
        super().__init__()
        self.down_proj = nn.Linear(d, r)
        self.up_proj = nn.Linear(r, d)
        nn.init.normal_(self.up_proj.weight, std=1e-3)
        self.drop = nn.Dropout(0.0)
        nn.init.zeros_(self.up_proj.bias)

    def forward_delta(self, x):
        return self.up_proj(self.drop(torch.tanh(self.down_proj(x))))

    forward = forward_delta


class AdapterStack(nn.Module):
    def __init__(self, d_model, bottleneck_dim, num_adapters):
        super().__init__()
        if num_adapters < 1:
            raise ValueError("num_adapters must be at least 1")
        self.add_module("adapters", nn.ModuleList([Bottle(d_model, bottleneck_dim) for i in range(num_adapters)]))

    def forward(self, x, adapter_id):
        known = dict(enumerate(self.adapters))
        if adapter_id not in known:
            raise IndexError(f"adapter_id should be one of {sorted(known)}")
        return x.add(known[adapter_id].forward_delta(x))
