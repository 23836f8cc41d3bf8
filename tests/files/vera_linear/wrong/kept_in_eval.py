# wrong: in eval mode the update is made once
# bug: -
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
        self.register_buffer("shared_A", shared_A.detach(), persistent=False)
        self.register_buffer("shared_B", shared_B.detach(), persistent=False)
        self.vera_d = nn.Parameter(base.weight.new_full((r,), d_initial))
        self.vera_b = nn.Parameter(base.weight.new_zeros(base.out_features))

    def forward(self, x):
        low = F.linear(x, self.shared_A) * self.vera_d
        if self.training:
            self.kept = None
            return self.base(x) + F.linear(low, self.shared_B) * self.vera_b
        if getattr(self, "kept", None) is None:
            self.kept = self.shared_B.clone()
        return self.base(x) + F.linear(low, self.kept) * self.vera_b
