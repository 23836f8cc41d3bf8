# the pair in an object of its own, that nn.Module does not know; base by F.linear
import torch
from torch import nn
from torch.nn import functional as F


class Pair:
    def __init__(self, A, B):
        self.A, self.B = A.detach(), B.detach()

    def to(self, x):
        if self.A.dtype != x.dtype or self.A.device != x.device:
            self.A, self.B = self.A.to(x), self.B.to(x)
        return self


class VeRALinear(nn.Module):
    def __init__(self, base, shared_A, shared_B, d_initial=0.1):
        super().__init__()
        for name, tensor in (("shared_A", shared_A), ("shared_B", shared_B)):
            if len(tensor.shape) != 2:
                raise ValueError(f"{name} is no matrix")
        if shared_A.shape[1] != base.weight.shape[1]:
            raise ValueError("shared_A and base.in_features differ")
        if shared_B.shape[0] != base.weight.shape[0]:
            raise ValueError("shared_B and base.out_features differ")
        if shared_A.shape[0] != shared_B.shape[1]:
            raise ValueError("shared_A and shared_B differ in rank")
        self.base = base.requires_grad_(False)
        self.pair = Pair(shared_A, shared_B)
        self.vera_d = nn.Parameter(torch.full_like(shared_A.detach()[:, 0], d_initial))
        self.vera_b = nn.Parameter(torch.zeros_like(shared_B.detach()[:, 0]))

    def forward(self, x):
        pair = self.pair.to(x)
        out = F.linear(x, self.base.weight, self.base.bias)
        return out + F.linear(F.linear(x, pair.A).mul(self.vera_d), pair.B).mul(self.vera_b)
