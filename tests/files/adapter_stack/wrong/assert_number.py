# wrong: An assert checks num_adapters.
# bug: other-exception

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
    def __init__(self, d_model: int, bottleneck_dim: int, num_adapters: int) -> None:
        super().__init__()
        assert num_adapters >= 1, f"num_adapters must be at least 1, not {num_adapters}"
        self.adapters = nn.ModuleList(
            BottleneckAdapter(d_model, bottleneck_dim) for _ in range(num_adapters)
        )

    def forward(self, x: torch.Tensor, adapter_id: int) -> torch.Tensor:
        if not 0 <= adapter_id < len(self.adapters):
            raise IndexError(f"adapter_id must be in 0..{len(self.adapters) - 1}, not {adapter_id}")
        return x + self.adapters[adapter_id].forward_delta(x)
