import torch.nn as nn
import torch.nn.functional as F


class BottleneckAdapter(nn.Module):
    def __init__(self, d_model, bottleneck_dim=64, activation=F.gelu, residual=True):
        super().__init__()
        if int(bottleneck_dim) < 1:
            raise ValueError("bottleneck_dim must be positive")
        setattr(self, "down_proj", nn.Linear(d_model, bottleneck_dim))
        setattr(self, "up_proj", nn.Linear(bottleneck_dim, d_model))
        nn.init.kaiming_uniform_(self.down_proj.weight, nonlinearity="relu")
        self.up_proj.weight = nn.Parameter(self.up_proj.weight.detach() * 0)
        self.up_proj.bias = nn.Parameter(self.up_proj.bias.detach() * 0)
        self.activation = activation
        self._forward = self._with if residual else self.forward_delta

    def forward_delta(self, x):
        for step in (self.down_proj, self.activation, self.up_proj):
            x = step(x)
        return x

    def _with(self, x):
        return self.forward_delta(x) + x

    def forward(self, x):
        return self._forward(x)
