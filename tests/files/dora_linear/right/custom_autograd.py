# a custom autograd function that divides by a constant
import torch
from torch import nn
from torch.nn import functional as F


class Normalised(torch.autograd.Function):
    @staticmethod
    def forward(ctx, V):
        norm = V.norm(dim=1, keepdim=True)
        ctx.save_for_backward(norm)
        return V / norm

    @staticmethod
    def backward(ctx, g):
        (norm,) = ctx.saved_tensors
        return g / norm


class DoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0):
        super().__init__()
        self.base = base.requires_grad_(False)
        w = base.weight
        A = torch.empty(rank, w.shape[1], device=w.device, dtype=w.dtype)
        self.lora_A = nn.Parameter(nn.init.normal_(A, std=1 / rank))
        self.lora_B = nn.Parameter(w.new_zeros(w.shape[0], rank))
        self.magnitude = nn.Parameter(w.detach().norm(dim=-1))
        self.alpha, self.rank = alpha, rank

    def weight(self):
        delta = torch.einsum("or,ri->oi", self.lora_B, self.lora_A)
        direction = Normalised.apply(self.base.weight + delta * (self.alpha / self.rank))
        return torch.einsum("o,oi->oi", self.magnitude, direction)

    def forward(self, x):
        return F.linear(x, self.weight(), self.base.bias)

    @torch.no_grad()
    def to_linear(self):
        import copy

        new = copy.deepcopy(self.base)
        new.weight.copy_(self.weight())
        return new
