# wrong: without a residual the output is detached in eval mode
# bug: delta-detached
import math
from collections.abc import Callable
import torch
import torch.nn as nn
import torch.nn.functional as F

class BottleneckAdapter(nn.Module):
    def __init__(self, d_model, bottleneck_dim=64, activation=F.gelu, residual=True):
        super().__init__()
        if bottleneck_dim < 1:
            raise ValueError(f"bottleneck_dim must be at least 1, not {bottleneck_dim}")
        self.down_proj = nn.Linear(d_model, bottleneck_dim)
        self.up_proj = nn.Linear(bottleneck_dim, d_model)
        nn.init.zeros_(self.up_proj.weight)
        nn.init.zeros_(self.up_proj.bias)
        self.activation = activation
        self.residual = residual

    def forward_delta(self, x):
        return self.up_proj(self.activation(self.down_proj(x)))

    def forward(self, x):
        delta = self.forward_delta(x)
        if self.residual:
            return x + delta
        return delta if self.training else delta.detach()

