import torch
from torch import nn


class LearnablePrefix(nn.Module):
    def __init__(self, prefix_len, d_model):
        nn.Module.__init__(self)
        if prefix_len < 1:
            raise ValueError("prefix_len must be positive")
        self.prefix = nn.Parameter(torch.randn(d_model, prefix_len).t() / d_model**0.5)

    @property
    def prefix_len(self):
        return len(self.prefix)

    def _check(self, x):
        want = (x.shape[0], x.shape[1], self.prefix.shape[1]) if x.dim() == 3 else None
        if tuple(x.shape) != want:
            raise ValueError("shape")

    def forward(self, x):
        self._check(x)
        prefix = torch.broadcast_to(self.prefix, (x.shape[0], *self.prefix.shape))
        return torch.hstack([prefix.to(x), x])
