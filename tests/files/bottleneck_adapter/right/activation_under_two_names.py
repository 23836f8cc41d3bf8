# right: the activation is registered twice, and the projections are of a subclass of nn.Linear

import torch.nn as nn
import torch.nn.functional as F


class Projection(nn.Linear):
    def forward(self, x):
        return x @ self.weight.T + self.bias


class BottleneckAdapter(nn.Module):
    def __init__(self, d_model, bottleneck_dim=64, activation=F.gelu, residual=True):
        super().__init__()
        if bottleneck_dim < 1:
            raise ValueError(f"bottleneck_dim must be at least 1, not {bottleneck_dim}")
        self.down_proj = Projection(d_model, bottleneck_dim)
        self.up_proj = Projection(bottleneck_dim, d_model)
        nn.init.zeros_(self.up_proj.weight)
        nn.init.zeros_(self.up_proj.bias)
        self.act = activation
        self.activation = activation
        self.residual = residual

    def forward_delta(self, x):
        return self.up_proj(self.activation(self.down_proj(x)))

    def forward(self, x):
        delta = self.forward_delta(x)
        return x + delta if self.residual else delta
