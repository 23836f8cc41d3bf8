# right: x flattened by hand, one row at a time kept as a matrix; extra keys; own train()
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
        return self.magnitude.unsqueeze(1) * V / V.detach().pow(2).sum(1, keepdim=True).sqrt()

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        out = flat.new_empty(0)
        out = torch.mm(flat, self.W.t())
        if self.base.bias is not None:
            out = out + self.base.bias
        return out.view(*x.shape[:-1], -1)

    def train(self, mode=True):
        for m in self.children():
            m.train(mode)
        self.training = mode
        return self

    def to_linear(self):
        b = self.base
        out = nn.Linear(b.in_features, b.out_features, b.bias is not None, b.weight.device, b.weight.dtype)
        with torch.no_grad():
            out.weight.copy_(self.W)
            if b.bias is not None:
                out.bias.copy_(b.bias)
        return out
