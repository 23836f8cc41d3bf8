import torch
from torch import nn


class LearnablePrefix(nn.Module):
    def __init__(self, prefix_len, d_model):
        super().__init__()
        if prefix_len < 1:
            raise ValueError("prefix_len must be positive")
        self.prefix_len, self.d_model = prefix_len, d_model
        self.register_parameter("prefix", nn.Parameter(torch.rand(prefix_len, d_model) - 0.5))

    def forward(self, x):
        if x.ndim != 3 or x.size(2) != self.d_model:
            raise ValueError("expected (B, L, d_model)")
        return torch.stack([torch.vstack((self.prefix.type_as(row), row)) for row in x])
