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
        return self.up_proj(torch.relu(self.down_proj(x)))

    forward = forward_delta


class Adapters(nn.ModuleList):
    def pick(self, adapter_id):
        if not 0 <= int(adapter_id) < len(self):
            raise IndexError(f"adapter_id={adapter_id}")
        return self[int(adapter_id)]


class AdapterStack(nn.Module):
    def __init__(self, d_model: int, bottleneck_dim: int, num_adapters: int) -> None:
        super().__init__()
        if num_adapters < 1:
            raise ValueError("num_adapters")
        self.adapters = Adapters(Bottle(d_model, bottleneck_dim) for _ in range(num_adapters))
        self.register_buffer("uses", torch.zeros(num_adapters, dtype=torch.long), persistent=False)

    def forward(self, x, adapter_id=0):
        adapter = self.adapters.pick(adapter_id)
        return sum((x, adapter.forward_delta(x)))
