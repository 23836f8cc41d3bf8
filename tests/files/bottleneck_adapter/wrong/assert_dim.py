# wrong: assert checks the size.
# bug: other-exception
"""A bottleneck adapter.

Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP", section 2.1: project down,
apply a nonlinearity, project up, add the input. With the up-projection at zero the adapter starts
as the identity.
"""

from collections.abc import Callable

import torch
import torch.nn as nn
import torch.nn.functional as F


class BottleneckAdapter(nn.Module):
    """Down-projection, activation, up-projection, and a residual around the three.

    Attributes:
        down_proj    nn.Linear(d_model, bottleneck_dim): random (as nn.Linear starts is fine)
        up_proj      nn.Linear(bottleneck_dim, d_model): weight and bias zero

    `activation` is a function or an nn.Module; a module is registered, so that its parameters
    train and are in the state dict.

    Raises ValueError naming `bottleneck_dim` if it is below 1.
    """

    def __init__(
        self,
        d_model: int,
        bottleneck_dim: int = 64,
        activation: Callable[[torch.Tensor], torch.Tensor] = F.gelu,
        residual: bool = True,
    ) -> None:
        super().__init__()
        assert bottleneck_dim >= 1, (f"bottleneck_dim must be at least 1, not {bottleneck_dim}")
        self.down_proj = nn.Linear(d_model, bottleneck_dim)
        self.up_proj = nn.Linear(bottleneck_dim, d_model)
        nn.init.zeros_(self.up_proj.weight)  # the delta starts at zero, ...
        nn.init.zeros_(self.up_proj.bias)  # ... so the adapter starts as the identity
        self.activation = activation  # a module is registered by this
        self.residual = residual

    def forward_delta(self, x: torch.Tensor) -> torch.Tensor:
        """up_proj(activation(down_proj(x))): the change alone, never with a residual.

        x: (..., d_model), any number of leading dimensions, also none; left unchanged.
        Returns the same shape.
        """
        return self.up_proj(self.activation(self.down_proj(x)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x + forward_delta(x), or the delta alone when residual=False. (..., d_model)"""
        delta = self.forward_delta(x)
        return x + delta if self.residual else delta
