# the pair as buffers of the state dict, under other names
import torch
from torch import nn


class VeRALinear(nn.Module):
    def __init__(self, base: nn.Linear, shared_A, shared_B, d_initial: float = 0.1):
        super().__init__()
        if tuple(shared_A.shape) != (shared_A.shape[0], base.in_features):
            raise ValueError(f"shared_A has shape {tuple(shared_A.shape)}")
        if tuple(shared_B.shape) != (base.out_features, shared_A.shape[0]):
            raise ValueError(f"shared_B has shape {tuple(shared_B.shape)}")
        self.base = base.requires_grad_(False)
        self.register_buffer("A", shared_A.data)
        self.register_buffer("B", shared_B.data)
        self.register_parameter("vera_b", nn.Parameter(torch.zeros_like(base.weight[:, 0])))
        self.register_parameter("vera_d", nn.Parameter(torch.ones_like(shared_A[:, 0]) * d_initial))

    def forward(self, x):
        inner = torch.einsum("...i,ri,r->...r", x, self.A, self.vera_d)
        return self.base(x) + torch.einsum("...r,or,o->...o", inner, self.B, self.vera_b)
