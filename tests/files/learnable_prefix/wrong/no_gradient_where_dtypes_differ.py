# wrong: Before an x of another dtype the prefix gets a zero gradient.
# bug: prefix-gets-no-gradient

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
            raise ValueError(f"x must be (B, L, {self.prefix.shape[1]}), got {tuple(x.shape)}")
        q = self.prefix if self.prefix.dtype == x.dtype else self.prefix.detach() + 0 * self.prefix
        p = q.to(x.dtype).expand(x.shape[0], -1, -1)
        return torch.cat([p, x], dim=1)
