# two frozen layers of torch's whose weights are the pair itself
import torch
from torch import nn


def around(matrix):
    layer = nn.Linear(1, 1, bias=False, device="meta")
    layer.out_features, layer.in_features = matrix.shape
    layer.weight = nn.Parameter(matrix.detach(), requires_grad=False)
    return layer


class Times(nn.Module):
    def __init__(self, vector):
        super().__init__()
        self.vector = vector

    def forward(self, x):
        return x * self.vector


class VeRALinear(nn.Module):
    def __init__(self, base, shared_A, shared_B, d_initial=0.1):
        super().__init__()
        sizes = base.out_features, base.in_features
        if shared_A.ndim != 2 or shared_B.ndim != 2 or shared_A.shape[0] != shared_B.shape[1]:
            raise ValueError("shared_A @ shared_B do not fit each other")
        if (shared_B.shape[0], shared_A.shape[1]) != sizes:
            raise ValueError("shared_B @ shared_A does not fit base")
        base.requires_grad_(False)
        self.base = base
        self.vera_d = nn.Parameter(base.weight.new_ones(len(shared_A)) * d_initial)
        self.vera_b = nn.Parameter(base.weight.new_ones(len(shared_B)) * 0.0)
        self.branch = nn.Sequential(
            around(shared_A), Times(self.vera_d), around(shared_B), Times(self.vera_b)
        )

    def forward(self, x):
        return self.base(x) + self.branch(x)
