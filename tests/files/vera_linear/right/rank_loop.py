# one direction of the pair after the other
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(eq=False, repr=False)
class VeRALinear(nn.Module):
    base: nn.Linear
    shared_A: torch.Tensor
    shared_B: torch.Tensor
    d_initial: float = 0.1

    def __new__(cls, *args, **words):
        self = object.__new__(cls)
        nn.Module.__init__(self)
        return self

    def __post_init__(self):
        A, B, w = self.shared_A, self.shared_B, self.base.weight
        if A.ndim != 2 or B.ndim != 2:
            raise ValueError("shared_A and shared_B: matrices are wanted")
        if A.shape[1] != w.shape[1] or B.shape[0] != w.shape[0]:
            raise ValueError(f"shared_A {A.shape}, shared_B {B.shape} do not fit {w.shape}")
        if A.shape[0] != B.shape[1]:
            raise ValueError(f"shared_A {A.shape}, shared_B {B.shape} do not fit each other")
        if isinstance(A, nn.Parameter):
            del self.shared_A
            self.shared_A = A.detach()
        if isinstance(B, nn.Parameter):
            del self.shared_B
            self.shared_B = B.detach()
        self.base.requires_grad_(False)
        self.vera_d = nn.Parameter(w.new_full((A.shape[0],), self.d_initial))
        self.vera_b = nn.Parameter(w.new_zeros(w.shape[0]))

    def forward(self, x):
        out = 0.0
        for k, d in enumerate(self.vera_d):
            row, column = self.shared_A[k].to(x), self.shared_B[:, k].to(x)
            out = out + (x * row).sum(-1, keepdim=True) * d * column
        return self.base(x) + out * self.vera_b
