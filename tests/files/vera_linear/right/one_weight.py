# weight and update are summed before one product
import torch
import torch.nn.functional as F
from torch import nn


class VeRALinear(nn.Module):
    def __init__(self, base, shared_A, shared_B, d_initial=0.1):
        if shared_A.ndim != 2 or shared_B.ndim != 2:
            raise ValueError("shared_A and shared_B have to be matrices")
        (r, into), (out, r2) = shared_A.shape, shared_B.shape
        if (out, into) != tuple(base.weight.shape) or r != r2:
            raise ValueError("shared_A, shared_B and base do not fit together")
        super().__init__()
        self.base = base
        base.weight.requires_grad_(False)
        if base.bias is not None:
            base.bias.requires_grad_(False)
        self.register_buffer("A", shared_A.detach(), persistent=False)
        self.register_buffer("B", shared_B.detach(), persistent=False)
        self.vera_d = nn.Parameter(base.weight.detach().new_tensor([d_initial]).repeat(r))
        self.vera_b = nn.Parameter(base.weight.detach().new_tensor([0.0]).repeat(out))

    def delta(self):
        return (self.vera_b[:, None] * self.B) @ (self.vera_d[:, None] * self.A)

    def forward(self, x):
        return F.linear(x, self.base.weight + self.delta(), self.base.bias)
