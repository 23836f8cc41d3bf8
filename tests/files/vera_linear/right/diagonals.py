# the paper's diagonal matrices, written out
import torch
from torch import nn


class VeRALinear(nn.Module):
    def __init__(self, base, shared_A, shared_B, d_initial=0.1):
        super().__init__()
        if not (shared_A.ndim == 2 and shared_A.shape[-1] == base.in_features):
            raise ValueError("shape of shared_A")
        if shared_B.shape != torch.Size([base.out_features, shared_A.shape[0]]):
            raise ValueError("shape of shared_B")
        self.base = base.requires_grad_(False)
        self._buffers["A"], self._buffers["B"] = shared_A.detach(), shared_B.detach()
        self._non_persistent_buffers_set |= {"A", "B"}
        self.vera_d = nn.Parameter(torch.zeros(len(shared_A)).to(base.weight) + d_initial)
        self.vera_b = nn.Parameter(torch.zeros(base.out_features).to(base.weight))

    def forward(self, x):
        low = x @ self.A.T @ torch.diag(self.vera_d)
        return self.base(x) + low @ self.B.T @ torch.diag(self.vera_b)
