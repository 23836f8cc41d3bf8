import math

import torch
from torch import nn


class Branch(torch.autograd.Function):
    """scale * x A^T B^T with its backward pass written out."""

    @staticmethod
    def forward(ctx, x, A, B, scale):
        low = x @ A.T
        ctx.save_for_backward(x, A, B, low)
        ctx.scale = scale
        return scale * (low @ B.T)

    @staticmethod
    def backward(ctx, g):
        x, A, B, low = ctx.saved_tensors
        g = ctx.scale * g
        g_low = g @ B
        rows = lambda t: t.reshape(-1, t.shape[-1])
        g_x = g_low @ A if ctx.needs_input_grad[0] else None
        return g_x, rows(g_low).T @ rows(x), rows(g).T @ rows(low), None


class LoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0, dropout=0.0):
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError("base")
        if rank < 1:
            raise ValueError("rank")
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scale, self.merged, self.dropout = alpha / rank, False, nn.Dropout(dropout)

    def forward(self, x):
        y = self.base(x)
        if self.merged:
            return y
        return y + Branch.apply(self.dropout(x), self.lora_A, self.lora_B, self.scale)

    def delta_weight(self):
        return self.scale * self.lora_B.mm(self.lora_A)

    def merge(self):
        if not self.merged:
            self.base.weight.detach().add_(self.delta_weight().detach())
            self.merged = True

    def unmerge(self):
        if self.merged:
            self.base.weight.detach().sub_(self.delta_weight().detach())
            self.merged = False
