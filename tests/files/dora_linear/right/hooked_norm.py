# right: the norm is detached by computing gradient as with inference of a detached copy; extra state
import math
import torch
import torch.nn as nn
import torch.nn.functional as F


class DoRALinear(nn.Module):
    def __init__(self, base, rank=8, alpha=16.0):
        super().__init__()
        self.base = base.requires_grad_(False)
        w = base.weight
        self.lora_A = nn.Parameter(torch.randn(rank, base.in_features, dtype=w.dtype, device=w.device) / rank ** 0.5)
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, dtype=w.dtype, device=w.device))
        self.magnitude = nn.Parameter(torch.linalg.vector_norm(w, dim=1))
        self.scale = alpha / rank

    @property
    def W(self):
        V = torch.addmm(self.base.weight, self.lora_B, self.lora_A, alpha=self.scale)
        return self.magnitude.unsqueeze(1) * V / self.n()

    @torch.no_grad()
    def n(self):
        return (self.base.weight + self.scale * (self.lora_B @ self.lora_A)).norm(dim=1, keepdim=True)

    def get_extra_state(self):
        return {"scale": self.scale}

    def set_extra_state(self, state):
        self.scale = state["scale"]

    def forward(self, x):
        return F.linear(x, self.W, self.base.bias)

    def to_linear(self):
        b = self.base
        out = nn.Linear(b.in_features, b.out_features, b.bias is not None, b.weight.device, b.weight.dtype)
        with torch.no_grad():
            out.weight.copy_(self.W)
            if b.bias is not None:
                out.bias.copy_(b.bias)
        return out
