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
        return Put.apply(self.prefix, x)


class Put(torch.autograd.Function):
    @staticmethod
    def forward(ctx, prefix, x):
        ctx.n, ctx.dtype = len(prefix), prefix.dtype
        return torch.cat([prefix.to(x.dtype).expand(len(x), -1, -1), x], 1)

    @staticmethod
    def backward(ctx, g):
        return g[:, : ctx.n].sum(0).to(ctx.dtype), g[:, ctx.n :]
