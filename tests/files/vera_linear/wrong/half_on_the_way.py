# wrong: after .to() the branch is computed in float32
# bug: - (unlikely)
import torch
import torch.nn as nn
import torch.nn.functional as F


class VeRALinear(nn.Module):
    def __init__(self, base, shared_A, shared_B, d_initial=0.1):
        super().__init__()
        if shared_A.ndim != 2 or shared_A.shape[1] != base.in_features:
            raise ValueError(f"shared_A has the wrong shape, {tuple(shared_A.shape)}")
        r = shared_A.shape[0]
        if shared_B.shape != (base.out_features, r):
            raise ValueError(f"shared_B has the wrong shape, {tuple(shared_B.shape)}")
        self.base = base.requires_grad_(False)
        self.pair = shared_A.detach(), shared_B.detach()
        self.vera_d = nn.Parameter(base.weight.new_full((r,), d_initial))
        self.vera_b = nn.Parameter(base.weight.new_zeros(base.out_features))

    def forward(self, x):
        A, B = self.pair
        low = F.linear(x.to(A), A) * self.vera_d.to(A)
        return self.base(x) + F.linear(low, B).to(x) * self.vera_b
