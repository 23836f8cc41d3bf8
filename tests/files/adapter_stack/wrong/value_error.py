# wrong: A bad id raises ValueError.
# bug: other-exception
"""Several adapters, one chosen at each call.

Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP", section 1: one small adapter
per task beside one shared model; and Pfeiffer et al. 2021, "AdapterFusion", section 2.2.1.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F


# Given
class BottleneckAdapter(nn.Module):
    """up_proj(gelu(down_proj(x))), with up_proj starting at zero."""

    def __init__(self, d_model: int, bottleneck_dim: int) -> None:
        super().__init__()
        self.down_proj = nn.Linear(d_model, bottleneck_dim)
        self.up_proj = nn.Linear(bottleneck_dim, d_model)
        nn.init.zeros_(self.up_proj.weight)
        nn.init.zeros_(self.up_proj.bias)

    def forward_delta(self, x: torch.Tensor) -> torch.Tensor:
        """The change alone, without a residual. (..., d_model)"""
        return self.up_proj(F.gelu(self.down_proj(x)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x plus the change. (..., d_model)"""
        return x + self.forward_delta(x)


class AdapterStack(nn.Module):
    """Bottleneck adapters for several tasks; each call runs one of them.

    Attributes:
        adapters    nn.ModuleList of num_adapters separate bottleneck adapters, each with
                    down_proj, up_proj and forward_delta (of the class above, or your own)

    Raises ValueError naming `num_adapters` if it is below 1.
    """

    def __init__(self, d_model: int, bottleneck_dim: int, num_adapters: int) -> None:
        super().__init__()
        if num_adapters < 1:
            raise ValueError(f"num_adapters must be at least 1, not {num_adapters}")
        self.adapters = nn.ModuleList(
            BottleneckAdapter(d_model, bottleneck_dim) for _ in range(num_adapters)
        )

    def forward(self, x: torch.Tensor, adapter_id: int) -> torch.Tensor:
        """x + adapters[adapter_id].forward_delta(x)

        x: (..., d_model), any number of leading dimensions, also none; left unchanged.
        Returns the same shape. Only the chosen adapter runs and receives gradients.
        Raises IndexError naming `adapter_id` if it is not in 0..num_adapters-1; a negative one
        does not count from the end.
        """
        if not 0 <= adapter_id < len(self.adapters):
            raise ValueError(f"adapter_id must be in 0..{len(self.adapters) - 1}, not {adapter_id}")
        return x + self.adapters[adapter_id].forward_delta(x)
