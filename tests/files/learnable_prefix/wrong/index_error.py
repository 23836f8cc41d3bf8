# wrong: A wrong x raises IndexError.
# bug: other-exception

import torch
import torch.nn as nn


class LearnablePrefix(nn.Module):
    def __init__(self, prefix_len, d_model):
        super().__init__()
        if prefix_len < 1:
            raise ValueError(f"prefix_len must be at least 1, got {prefix_len}")
        self.prefix = nn.Parameter(torch.randn(prefix_len, d_model) * 0.02)

    def forward(self, x):
        if x.dim() != 3 or x.shape[-1] != self.prefix.shape[1]:
            raise IndexError(f"x must be (B, L, {self.prefix.shape[1]}), got {tuple(x.shape)}")
        p = self.prefix.to(x.dtype).expand(x.shape[0], -1, -1)
        return torch.cat([p, x], dim=1)
