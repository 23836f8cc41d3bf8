import torch
from torch import nn


class LearnablePrefix(nn.Module):
    def __init__(self, prefix_len, d_model):
        super().__init__()
        if prefix_len < 1:
            raise ValueError("prefix_len must be positive")
        self.prefix = nn.Parameter(torch.empty(prefix_len, d_model))
        nn.init.xavier_uniform_(self.prefix)

    def forward(self, x):
        try:
            B, L, d = x.shape
        except ValueError:
            raise ValueError("three dimensions wanted") from None
        if d != self.prefix.size(1):
            raise ValueError("wrong width")
        P = self.prefix.size(0)
        out = x.new_empty(B, P + L, d)
        out[:, :P] = self.prefix.to(x.dtype)
        out[:, P:] = x
        return out
