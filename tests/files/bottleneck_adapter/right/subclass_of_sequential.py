from torch import nn
import torch.nn.functional as F


class BottleneckAdapter(nn.Sequential):
    def __init__(self, d_model, bottleneck_dim=64, activation=F.gelu, residual=True):
        if bottleneck_dim < 1:
            raise ValueError("bottleneck_dim < 1")
        super().__init__()
        self.add_module("down_proj", nn.Linear(d_model, bottleneck_dim))
        self.add_module("up_proj", nn.Linear(bottleneck_dim, d_model))
        nn.init.zeros_(self.up_proj.weight), nn.init.zeros_(self.up_proj.bias)
        if isinstance(activation, nn.Module):
            self.add_module("activation", activation)
        else:
            self.activation = activation
        self.residual = residual

    def forward_delta(self, x):
        return self.up_proj(self.activation(self.down_proj(x)))

    def forward(self, x):
        return self.forward_delta(x) + (x if self.residual else 0)
