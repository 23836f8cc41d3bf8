import torch
from torch import nn
import torch.nn.functional as F


class Bottle(nn.Module):
    """My own adapter."""

    def __init__(self, d, r):
        super().__init__()
        self.down_proj = nn.Linear(d, r)
        self.up_proj = nn.Linear(r, d)
        nn.init.zeros_(self.up_proj.weight)
        nn.init.zeros_(self.up_proj.bias)

    def forward_delta(self, x):
        return self.up_proj(F.silu(self.down_proj(x)))

    forward = forward_delta


class AdapterStack(nn.Module):
    def __init__(self, d_model, bottleneck_dim, num_adapters):
        super().__init__()
        if num_adapters < 1:
            raise ValueError("num_adapters must be at least 1")
        self.adapters = nn.ModuleList(map(lambda _: Bottle(d_model, bottleneck_dim), range(num_adapters)))

    def forward(self, x, adapter_id):
        if not (adapter_id >= 0 and adapter_id < len(self.adapters)):
            raise IndexError("no such adapter_id: %d" % adapter_id)
        a = self.adapters[adapter_id]
        h = F.silu(F.linear(x, a.down_proj.weight, a.down_proj.bias))
        return x + F.linear(h, a.up_proj.weight, a.up_proj.bias)
