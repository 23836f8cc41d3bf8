# wrong: through float32
# bug: float32-inside

import torch
import torch.nn as nn


class LearnablePrefix(nn.Module):
    def __init__(self, prefix_len, d_model):
        super().__init__()
        if prefix_len < 1:
            raise ValueError(f"prefix_len must be at least 1, not {prefix_len}")
        self.prefix = nn.Parameter(torch.randn(prefix_len, d_model) * 0.02)

    def forward(self, x):
        if x.dim() != 3 or x.shape[-1] != self.prefix.shape[1]:
            raise ValueError(f"x must be (B, L, {self.prefix.shape[1]}), not {tuple(x.shape)}")
        return torch.cat([self.prefix.float().expand(x.shape[0], -1, -1), x.float()], dim=1).to(
            x.dtype
        )
