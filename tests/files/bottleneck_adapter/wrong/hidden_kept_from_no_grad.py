# wrong: What was computed under no_grad is used again with gradients.
# bug: - (unlikely)

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
        self._kept = (None, None)
        self.residual = residual

    def forward_delta(self, x):
        seen, hidden = self._kept
        if seen is not x or not torch.is_grad_enabled():
            hidden = self.activation(self.down_proj(x))
        self._kept = (None, None) if torch.is_grad_enabled() else (x, hidden)
        return self.up_proj(hidden)

    def forward(self, x):
        delta = self.forward_delta(x)
        return x + delta if self.residual else delta
