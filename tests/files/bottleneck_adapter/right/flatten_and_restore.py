import torch
from torch import nn
import torch.nn.functional as F


class BottleneckAdapter(nn.Module):
    def __init__(self, d_model, bottleneck_dim=64, activation=F.gelu, residual=True):
        super().__init__()
        if bottleneck_dim < 1:
            raise ValueError("bottleneck_dim")
        self.d_model = d_model
        self.down_proj = nn.Linear(d_model, bottleneck_dim)
        self.up_proj = nn.Linear(bottleneck_dim, d_model)
        self.up_proj.load_state_dict({k: torch.zeros_like(v) for k, v in self.up_proj.state_dict().items()})
        self.activation = activation
        self.skip = nn.Identity() if residual else None

    def forward_delta(self, x):
        flat = x.reshape(-1, self.d_model)
        h = self.activation(torch.addmm(self.down_proj.bias, flat, self.down_proj.weight.t()))
        return torch.addmm(self.up_proj.bias, h, self.up_proj.weight.t()).reshape(x.shape)

    def forward(self, x):
        delta = self.forward_delta(x)
        return delta if self.skip is None else delta.add_(self.skip(x))
