# the pair as frozen parameters that share the storage of what was passed
import torch
from torch import nn
from torch.nn import functional as F


class VeRALinear(nn.Module):
    def __init__(self, base, shared_A, shared_B, d_initial=0.1):
        super().__init__()
        wanted = {"shared_A": (len(shared_A), base.in_features)}
        wanted["shared_B"] = (base.out_features, len(shared_A))
        for name, shape in wanted.items():
            if tuple(locals()[name].shape) != shape:
                raise ValueError(f"{name} should have shape {shape}")
        self.base = base.requires_grad_(False)
        self.shared_A = nn.Parameter(shared_A.detach(), requires_grad=False)
        self.shared_B = nn.Parameter(shared_B.detach(), requires_grad=False)
        w = base.weight
        self.vera_d = nn.Parameter(torch.empty(len(shared_A), device=w.device, dtype=w.dtype))
        self.vera_b = nn.Parameter(torch.empty(len(w), device=w.device, dtype=w.dtype))
        nn.init.constant_(self.vera_d, d_initial)
        nn.init.zeros_(self.vera_b)

    def forward(self, x):
        h = x @ self.shared_A.T
        h = h * self.vera_d
        h = h @ self.shared_B.T
        return self.base(x) + h * self.vera_b
