# right: the weight through torch's parametrize of a shadow layer held outside the modules
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
        self._forward = torch.func.functional_call

    @property
    def W(self):
        V = torch.addmm(self.base.weight, self.lora_B, self.lora_A, alpha=self.scale)
        return self.magnitude.unsqueeze(1) * V / V.detach().pow(2).sum(1, keepdim=True).sqrt()

    def forward(self, x):
        tensors = {"weight": self.W}
        if self.base.bias is not None:
            tensors["bias"] = self.base.bias
        return self._forward(self.base, tensors, (x,))

    def to_linear(self):
        b = self.base
        out = nn.Linear(b.in_features, b.out_features, b.bias is not None, b.weight.device, b.weight.dtype)
        with torch.no_grad():
            out.weight.copy_(self.W)
            if b.bias is not None:
                out.bias.copy_(b.bias)
        return out
