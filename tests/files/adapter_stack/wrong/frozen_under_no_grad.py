# wrong: a frozen adapter is run under no_grad: no gradient flows through it
# bug: -
import math
import torch
import torch.nn as nn
import torch.nn.functional as F


class BottleneckAdapter(nn.Module):
    def __init__(self, d_model, bottleneck_dim):
        super().__init__()
        self.down_proj = nn.Linear(d_model, bottleneck_dim)
        self.up_proj = nn.Linear(bottleneck_dim, d_model)
        nn.init.zeros_(self.up_proj.weight)
        nn.init.zeros_(self.up_proj.bias)

    def forward_delta(self, x):
        return self.up_proj(F.gelu(self.down_proj(x)))

    def forward(self, x):
        return x + self.forward_delta(x)


class AdapterStack(nn.Module):
    def __init__(self, d_model, bottleneck_dim, num_adapters):
        super().__init__()
        if num_adapters < 1:
            raise ValueError(f"num_adapters must be at least 1, not {num_adapters}")
        self.adapters = nn.ModuleList(BottleneckAdapter(d_model, bottleneck_dim) for _ in range(num_adapters))

    def forward(self, x, adapter_id):
        if not 0 <= adapter_id < len(self.adapters):
            raise IndexError(f"adapter_id {adapter_id} not in range")
        a = self.adapters[adapter_id]
        with torch.set_grad_enabled(torch.is_grad_enabled() and any(p.requires_grad for p in a.parameters())):
            d = a.forward_delta(x)
        return x + d

