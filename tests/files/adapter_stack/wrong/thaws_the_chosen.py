# wrong: an adapter that the caller froze is thawed by a forward
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
        self.adapters[adapter_id].requires_grad_(True)
        return x + self.adapters[adapter_id].forward_delta(x)

