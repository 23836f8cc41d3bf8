# base and vectors under second names, before and after the first
import torch
from torch import nn


class VeRALinear(nn.Module):
    def __init__(self, base, shared_A, shared_B, d_initial=0.1):
        super().__init__()
        if shared_A.ndim != 2 or shared_A.shape[1] != base.in_features:
            raise ValueError(f"shared_A: {shared_A.shape}")
        if shared_B.shape != (base.out_features, shared_A.shape[0]):
            raise ValueError(f"shared_B: {shared_B.shape}")
        w = base.weight
        d = nn.Parameter(w.detach().new_full((shared_A.shape[0],), d_initial))
        b = nn.Parameter(w.detach().new_zeros(base.out_features))
        self.vectors = nn.ParameterDict({"d": d, "b": b})
        self.vera_d, self.vera_b = d, b
        self.inner = self.base = base.requires_grad_(False)
        self.layers = nn.ModuleList([base])
        self.register_buffer("A", shared_A.detach())
        self.second_A = self.A
        self.register_buffer("B", shared_B.detach())

    def forward(self, x):
        return self.layers[0](x) + ((x @ self.A.T) * self.vectors["d"]) @ self.B.T * self.vera_b
