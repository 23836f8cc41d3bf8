import torch
from torch import Tensor, nn


class _Apply(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, h: Tensor) -> Tensor:
        return self.function(h)


class _ZeroLinear(nn.Linear):
    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class BottleneckAdapter(nn.Module):
    def __init__(self, d_model: int, bottleneck_dim: int = 64, activation=torch.nn.functional.gelu, residual: bool = True):
        if bottleneck_dim < 1:
            raise ValueError("`bottleneck_dim` must be >= 1")
        super().__init__()
        self.down_proj = nn.Linear(d_model, bottleneck_dim)
        nn.init.normal_(self.down_proj.weight, std=0.02)
        nn.init.zeros_(self.down_proj.bias)
        self.up_proj = _ZeroLinear(bottleneck_dim, d_model)
        self.activation = activation if isinstance(activation, nn.Module) else _Apply(activation)
        self.register_buffer("with_residual", torch.tensor(bool(residual)))

    def forward_delta(self, x):
        return self.up_proj(self.activation(self.down_proj(x)))

    def forward(self, x):
        return torch.where(self.with_residual, x, torch.zeros_like(x)) + self.forward_delta(x)
