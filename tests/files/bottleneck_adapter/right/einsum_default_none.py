import torch
from torch import nn


class BottleneckAdapter(nn.Module):
    """The default activation is made inside."""

    def __init__(self, d_model, bottleneck_dim=64, activation=None, residual=True):
        super().__init__()
        if bottleneck_dim <= 0:
            raise ValueError(f"bad bottleneck_dim: {bottleneck_dim}")
        self.down_proj, self.up_proj = nn.Linear(d_model, bottleneck_dim), nn.Linear(bottleneck_dim, d_model)
        nn.init.constant_(self.up_proj.weight, 0.0)
        nn.init.constant_(self.up_proj.bias, 0.0)
        self.activation = nn.GELU() if activation is None else activation
        self.residual = residual

    def forward_delta(self, x):
        h = torch.einsum("...d,bd->...b", x, self.down_proj.weight) + self.down_proj.bias
        h = self.activation(h)
        return torch.einsum("...b,db->...d", h, self.up_proj.weight) + self.up_proj.bias

    def forward(self, x):
        out = self.forward_delta(x)
        if self.residual:
            out = out + x
        return out
